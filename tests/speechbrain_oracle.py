"""SpeechBrain's front end in PyTorch, from its public description, on torch.stft."""

import numpy as np
import torch


def fbank(waveform: np.ndarray, bins: int = 80) -> np.ndarray:
    """(N,) in [-1, 1] at 16 kHz -> (T, bins): STFT, mel filters, dB, sentence mean."""
    spectrum = torch.stft(
        torch.from_numpy(waveform.astype(np.float64)),
        n_fft=400,
        hop_length=160,
        win_length=400,
        window=torch.hamming_window(400, dtype=torch.float64),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().pow(2).T  # (T, 201)
    top = 2595 * np.log10(1 + 8000 / 700)
    hertz = 700 * (10 ** (torch.linspace(0, top, bins + 2, dtype=torch.float64) / 2595) - 1)
    band, centre = (hertz[1:] - hertz[:-1])[:-1], hertz[1:-1]
    frequencies = torch.linspace(0, 8000, 201, dtype=torch.float64)
    slope = (frequencies[None, :] - centre[:, None]) / band[:, None]
    matrix = torch.clamp(torch.minimum(slope + 1, 1 - slope), min=0).T
    decibels = 10 * torch.log10(torch.clamp(power @ matrix, min=1e-10))
    decibels = torch.maximum(decibels, decibels.max() - 80)
    return (decibels - decibels.mean(0)).numpy()
