from . import agreement as agreement
from . import decision as decision
from . import enrolment_file as enrolment_file
from . import quality as quality
from . import speaker_verifier as speaker_verifier
from .decision import Identification as Identification
from .decision import Verification as Verification
from .speaker_verifier import SpeakerVerifier as SpeakerVerifier
