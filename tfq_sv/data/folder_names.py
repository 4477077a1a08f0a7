"""What folders are called: parts of a corpus, conditions, noise, speakers, numbers."""

import re

_SPLITS = (
    r"(train|training|trn|dev|devel|development|val|valid|validation|test|testing|tst|eval|"
    r"evaluation|enrol|enroll|enrolment|enrollment|trials?|held-?out|unseen|seen|cv|finetune|"
    r"gallery|probes?|query|queries|verif(y|ication)|registration|registered|references?)"
)
_FORMATS = (
    r"(wav(48|16|8|e|s|48_silence_trimmed)?|wav[_-]?\d+k?(hz)?|\d+k(hz)?|aac|m4a|mp3|mp4|flacs?|"
    r"ogg|opus|sph|pcm)"
)
# What recordings have in common, rather than who speaks.
_CONDITIONS = (
    r"car|office|street|cafe|restaurant|kitchen|bathroom|bedroom|living[-_ ]?room|home|lab|booth|"
    r"bus|library|classroom|hall|quiet|loud|crowd|"
    r"angry|anger|happy|happiness|sad|sadness|neutral|calm|fear|fearful|disgust|surprised?|bored|"
    r"excited|whisper(ed)?|shout(ed)?|normal|"
    r"iphone\w*|ipad\w*|ios|android|pixel\w*|laptop|tablet|headset|landline|cell(phone)?|webcam|"
    r"target|non-?target|impostors?|genuine|spoof(ed)?|bona-?fide|fake|real|positive|negative|"
    r"known|unknown|denoised|enhanced|(un)?trimmed|normali[sz]ed|augmented|segment(s|ed)|vad|"
    r"synthe(tic|sized)|cloned|tts|converted|[au]-?law|gsm|amr|codecs?|(narrow|wide)band|"
    r"snr[-_ ]?-?\d+[-_ ]?(db)?|-?\d+[-_ ]?db|sp(eed)?[-_ ]?\d\.\d+|"
    r"(19|20)\d\d[-_.](0[1-9]|1[0-2])([-_.](0[1-9]|[12]\d|3[01]))?|"
    r"(mon|tues|wednes|thurs|fri|satur|sun)day|morning|afternoon|evening|night"
)
_PARTS = re.compile(
    rf"{_SPLITS}([-_ .]?\d+[a-z]?|[-_ ].*)?|.*[-_]{_SPLITS}|{_FORMATS}|"
    # data sets
    r"libri(speech|tts|light).*|voxceleb.*|vox[12]([-_].*)?|cn-?_?celeb.*|vctk.*|(data_)?aishell.*|"
    r"timit|common-?_?voice.*|cv-corpus.*|speechocean.*|hi-?mia.*|magicdata.*|zhvoice|thchs.*|mls.*|"
    # containers
    r"audios?|data|dataset|datasets|corpus|corpora|sounds?|recordings?|clips|utterances|speech|"
    r"speech_?data|speakers|voices|raw|original|processed|resampled|downloads?|extracted|"
    # halves, rooms, channels, sessions, languages, kinds of people
    r"(part|split|subset|set|batch|disk|disc|cd|vol|volume|fold|chunk|group|room|channel|ch|mic|"
    r"device|session|sess|take|day|week|round|dr|region|condition|env)[-_ ]?(\d+|[a-z])|"
    r"male|female|males|females|man|woman|men|women|boys?|girls?|kids?|child|children|adults?|f|m|"
    r"clean|noisy|reverb|far|near|far-?field|near-?field|close-?talk|phone|telephone|mobile|"
    r"microphone|desktop|studio|indoor|outdoor|read|spontaneous|"
    r"en|de|fr|es|it|pt|nl|pl|ru|zh|ja|ko|ar|hi|tr|cn|us|uk|[a-z]{2}[-_][a-z]{2}|english|german|"
    r"french|spanish|italian|portuguese|dutch|polish|russian|chinese|mandarin|cantonese|japanese|"
    r"korean|arabic|hindi|turkish|vietnamese|thai|indonesian|swedish|norwegian|danish|finnish|"
    r"greek|czech|hungarian|romanian|ukrainian|persian|farsi|urdu|bengali|tamil|catalan|american|"
    rf"british|indian|australian|scottish|irish|训练集?|测试集?|验证集?|开发集?|注册|男声?|女声?|{_CONDITIONS}",
    re.IGNORECASE,
)
# Recordings of many people or of nobody, where they lie beside speakers' folders.
_NOBODY = re.compile(
    r"unknown|unlabell?ed|misc(ellaneous)?|various|mixed|others?|rejected|discarded|garbage|bad|"
    r"broken|corrupt(ed)?|samples?|examples?|demos?|previews?|all|everything|everyone|old|new|"
    r"archived?|inbox|incoming|to[-_ ]?(do|check|sort)|exports?|exported|unsorted|"
    r"(new|untitled)[-_ ]folder.*|neuer[-_ ]ordner.*|nouveau[-_ ]dossier.*|新建文件夹.*",
    re.IGNORECASE,
)
_COPY = re.compile(
    r"(copy[-_ ]of|copia[-_ ]de|kopie[-_ ]von|backup[-_ ]of|old)[-_ ](?P<of>.+)|"
    r"(?P<first>.+?)([-_ ]+(copy|kopie|copie|copia|kopia|kopi|копия|副本|コピー)([-_ ]?\(?\d+\)?)?|"
    r"[-_ ]?\(\d+\)|[-_. ]+(bak|backup|old|orig(inal)?|new|dup(licate)?))",
    re.IGNORECASE,
)
_NO_SPEAKERS = re.compile(
    r"[-_]*((background|free)?[-_ ]?noises?|musan|music|rirs?([-_]noises)?|simulated_rirs|"
    r"real_rirs.*|pointsource_noises|impulse[-_ ]?responses?|silences?|babble|ambien(t|ce)|"
    r"augmentation|tmp|temp|trash|logs?|checkpoints?|results?|outputs?|caches?|backups?|bak|exp|"
    r"mfccs?|fbanks?|feats|features|spectrograms?)[-_]*",
    re.IGNORECASE,
)
_NAMED_SPEAKER = re.compile(
    r"(spks?|spkr|speakers?|subject|subj|talker|reader|person|user|client|voice)[-_ ]?\w*\d\w*|"
    r"id[-_]?\d+",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"[a-z]{0,4}[-_]?\d{2,}[a-z]?", re.IGNORECASE)
# As long as speakers' numbers are, `p225` or `0011`, and no year.
_LONG_NUMBER = re.compile(r"(?!(19|20)\d\d)[a-z]{0,4}[-_]?\d{3,6}[a-z]?", re.IGNORECASE)
_WEAK = re.compile(r"[a-z]{1,2}|[a-z]{2}[-_][a-z]{2}|read|child|man|woman", re.IGNORECASE)
_FORMAT = re.compile(_FORMATS, re.IGNORECASE)
_TRAIN = re.compile(r"train|training|trn", re.IGNORECASE)
_HELD_OUT = re.compile(r"test|testing|tst|eval|evaluation", re.IGNORECASE)
_NO_PERSON = re.compile(
    r"train(ing)?|test(ing)?|eval(uation)?|validation|enrol(l|led|l?ment)?|trials?|verification",
    re.IGNORECASE,
)


def is_part(name: str) -> bool:
    """Whether a name, or each of its words, is what parts of a corpus are called.

    >>> [is_part(name) for name in ("train-clean-100", "Female_speakers", "snr_5dB", "ann")]
    [True, True, True, False]
    """
    words = [word for word in re.split(r"[-_ ]+", name) if word]
    several = len(words) > 1 and not any(map(is_weak, words))
    return bool(_PARTS.fullmatch(name)) or (several and all(map(_PARTS.fullmatch, words)))


def is_session(name: str) -> bool:
    """Whether it is one of a speaker's sessions or conditions: a number, a day, a place.

    Not a number as long as speakers have, since both are numbered.

    >>> [is_session(name) for name in ("1", "s02", "2023-01-05", "kitchen", "ann", "p225")]
    [True, True, True, True, False, False]
    """
    if _LONG_NUMBER.fullmatch(name):
        return False
    return name.isdigit() or is_numbered(name) or is_part(name)


def copy_of(name: str) -> str | None:
    """What a folder's name says that it is a copy of.

    >>> copy_of("ann - Copy"), copy_of("copy of ann"), copy_of("ann (2)"), copy_of("ann")
    ('ann', 'ann', 'ann', None)
    """
    match = _COPY.fullmatch(name)
    return (match["of"] or match["first"]) if match else None


def is_split(name: str) -> bool:
    """Whether it is a split's, `dev-clean` for instance."""
    return re.fullmatch(rf"{_SPLITS}([-_ ].*)?", name, re.IGNORECASE) is not None


def is_train(name: str) -> bool:
    """Whether it is the split that one trains on."""
    return _TRAIN.fullmatch(name) is not None


def is_held_out(name: str) -> bool:
    """Whether it is the split that one tests on."""
    return _HELD_OUT.fullmatch(name) is not None


def is_no_person(name: str) -> bool:
    """Whether nobody is called so, as somebody may be called Dev."""
    return _NO_PERSON.fullmatch(name) is not None


def is_format(name: str) -> bool:
    """Whether it is a format's, `wav48` for instance."""
    return _FORMAT.fullmatch(name) is not None


def is_noise(name: str) -> bool:
    """Whether it is of noise, music, rooms, or what tools leave."""
    return _NO_SPEAKERS.fullmatch(name) is not None


def is_nobody(name: str) -> bool:
    """Whether it is of many people or of nobody, `unknown` for instance."""
    return _NOBODY.fullmatch(name) is not None


def is_speaker(name: str) -> bool:
    """Whether it says itself that it is a speaker, `id10001` or `spk3` for instance."""
    return _NAMED_SPEAKER.fullmatch(name) is not None


def is_numbered(name: str) -> bool:
    """Whether it is a number of two digits or more, with a few letters perhaps."""
    return _NUMBERED.fullmatch(name) is not None


def is_weak(name: str) -> bool:
    """Whether people and speakers may be called so as well as parts."""
    return _WEAK.fullmatch(name) is not None
