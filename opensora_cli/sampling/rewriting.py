"""What a language model is asked about prompts: to write one out, and to score the motion it describes."""

import re

from opensora_cli.sampling.language_model import LanguageModel
from schemas.condition import ConditionName
from schemas.errors import OsoraError

WRITE_OUT = """You write captions for a model that makes short video clips. Turn the user's idea into one paragraph of English,
60 to 120 words, in the present tense. Say what is seen: the subjects and how they look, what they do from the first moment to
the last, the place, the light, the colours, the style, and how the camera moves. Keep everything that the user says and
contradict none of it. Answer with the paragraph alone: no heading, no quotes, no remarks."""
GIVEN_FRAMES = """ Some frames of the clip are given as pictures that you do not see. Say above all what moves and how, and
invent no looks, places or colours that the user does not name."""
MOTION = """You rate how much motion a video clip that fits a caption has, from 1 (still) over 4 (calm everyday movement) to 7
(fast action or a fast camera). Answer with one digit from 1 to 7 and nothing else."""
SCORE = re.compile(r"\b[1-7]\b")


def refined_prompt(model: LanguageModel, prompt: str, condition: ConditionName) -> str:
    """Return a prompt written out as a caption like those of training, on one line. Raises OsoraError."""
    instructions = WRITE_OUT if condition == "t2v" else WRITE_OUT + GIVEN_FRAMES
    return " ".join(model.ask(instructions, prompt).split())


def written_motion(model: LanguageModel, prompt: str) -> str:
    """Return the motion score, "1" to "7", that the model gives a prompt. Raises OsoraError for an answer without one."""
    answer = model.ask(MOTION, prompt)
    found: list[str] = SCORE.findall(answer)
    if len(set(found)) != 1:
        raise OsoraError(
            f"sampling.motion_score = dynamic: {model.config.model} was asked for a score from 1 to 7 and said {answer[:80]!r}. "
            "Choose another sampling.language_model.model, or a score yourself."
        )
    return found[0]
