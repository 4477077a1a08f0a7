# The public names: tfq_sv/__init__.py imports each when it is first used; checkers and editors read
# this file.
from . import assets as assets
from . import codebook as codebook
from . import codec as codec
from . import data as data
from . import errors as errors
from . import evaluation as evaluation
from . import experiments as experiments
from . import export as export
from . import features as features
from . import metrics as metrics
from . import mixed_precision as mixed_precision
from . import models as models
from . import quantization as quantization
from . import reports as reports
from . import training as training
from . import verification as verification
from .codebook import Codebook as Codebook
from .errors import InputError as InputError
from .mixed_precision.allocation import allocate_bits as allocate_bits
from .mixed_precision.file_size import predict_bytes as predict_bytes
from .mixed_precision.sensitivity import embedding_distortions as embedding_distortions
from .mixed_precision.sensitivity import fisher_traces as fisher_traces
from .mixed_precision.sensitivity import hessian_traces as hessian_traces
from .quantization.batch_norm import reestimate_batch_norm as reestimate_batch_norm
from .quantization.calibration import calibrate as calibrate
from .quantization.calibration import quantize as quantize
from .quantization.configs import AdaptiveBinaryQuantizeConfig as AdaptiveBinaryQuantizeConfig
from .quantization.configs import KMeansQuantizeConfig as KMeansQuantizeConfig
from .quantization.configs import StaticBinaryQuantizeConfig as StaticBinaryQuantizeConfig
from .quantization.configs import TrellisQuantizeConfig as TrellisQuantizeConfig
from .quantization.configs import WeightOnlyScheme as WeightOnlyScheme
from .quantization.quantized_model import codebooks as codebooks
from .quantization.quantized_model import dequantize as dequantize
from .quantization.quantized_model import load_model as load_model
from .quantization.recipe import QuantizationRecipe as QuantizationRecipe
from .training.fine_tuning import FollowCodebooks as FollowCodebooks
from .training.fine_tuning import UpdateCodebooks as UpdateCodebooks
from .training.fine_tuning import finetune as finetune
from .training.multi_stage import multi_stage_finetune as multi_stage_finetune
from .verification.speaker_verifier import SpeakerVerifier as SpeakerVerifier

__version__: str
