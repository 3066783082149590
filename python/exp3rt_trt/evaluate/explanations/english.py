"""Lists of English words that the measures of explanations go by."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Without content of their own: grammar, the vocabulary of the task, and bare praise or blame.
STOP = _words(
    """
    a about above after again all almost along also always am amazing an and another any anything
    are as aspect aspects at audience audiences average awful bad based be because been being best
    better between book books both brilliant by can certain concern concerns could critic critics
    description did dislike disliked dislikes do does doing downside downsides drawback drawbacks
    due during each either element elements else enough especially even ever every everything
    example excellent expect expectation expectations expected experience fantastic few film films
    find finds for found from further given good great had has have having he hence her here hers
    herself high him himself his how i if in including indeed instead interest interested interests
    into is issue issues it it's item items its itself just kind lack lacking lacks least less like
    liked likely likes lot low made make makes making many may me mediocre mentioned might minor
    more moreover most movie movies much must my near negative negatives neither never nice no none nor
    not nothing now number of off often on one ones only opinion or other others our out outstanding
    outweigh outweighs over overall overly own part particular particularly people perfect perhaps
    person persona persons poor poorly positive positives possible possibly potentially predict
    predicted prediction preference preferences probably profile quality quite rate rated rates
    rather rating ratings really reason reasoning reasons recommendation regarding review reviewer
    reviewers reviews same score scored scores seem seems several shall she should simply since so
    some something sometimes somewhat still such suitable superb synopsis taste tastes terrible than
    that that's the their them themselves then there therefore these they thing things this those
    through thus title to together too towards two under unlikely up upon us use used user user's
    users very via viewer viewers was we weak well were what when where whether which who whom whose
    why will with within without wonderful worse worst worth worthwhile would you your
    """
)
# Speak of liking.
_LIKING = _words(
    """
    admire admires align aligned aligns appeal appealing appeals appreciate appreciated appreciates
    captivate captivates delight delights enjoy enjoyable enjoyed enjoying enjoys favor favorite
    favors favour favourite favours fit fits fitting fond like liked likes love loved loves match
    matched matches matching please pleased pleases positively praise praised praises prefer
    preferred prefers recommend recommended resonate resonates resonating satisfied satisfies
    satisfy satisfying suit suited suits value valued values welcome welcomes
    """
)
# Speak of disliking.
_DISLIKING = _words(
    """
    annoy annoyed annoying annoys avoid avoids bore bored bores boring bother bothered bothers clash
    clashes complain complained complains conflicting contradict contradicts criticise criticised
    criticises criticize criticized criticizes deter deters detract detracted detracts disappoint
    disappointed disappointing disappointment disappoints disapprove disapproved disapproves
    disinterest dislike disliked dislikes displease displeases dissatisfied frustrate frustrated
    frustrates frustrating hate hated hates mismatch negatively off-putting turn-off unappealing
    unlikely
    """
)
STANCE = {**dict.fromkeys(_LIKING, 1), **dict.fromkeys(_DISLIKING, -1)}
# Turn liking round.
NEGATIONS = _words(
    """
    barely cannot fail failed fails hardly isn less n't neither never no nor not without
    """
)
# Have what is liked for an object; the others ("aligns", "disappointing") relate it to something else.
TRANSITIVE = _words(
    """
    admire admires appreciate appreciated appreciates avoid avoids criticise criticises criticize
    criticizes disapprove disapproved disapproves dislike disliked dislikes enjoy enjoyed enjoying
    enjoys favor favors favour favours hate hated hates like liked likes love loved loves prefer
    preferred prefers value valued values
    """
)
# Count only where a verb may stand: behind one of BEFORE_VERBS, or an adverb.
OTHERWISE_NOUNS = _words(
    """
    appeal bore delight favor favour fit hate like love match praise suit value values
    """
)
BEFORE_VERBS = _words(
    """
    person would will may might can could should shall do does did to not never they user who people also
    and i you we he she viewers
    """
)
# Mark what will come of it, not what the user likes in general.
FORESEEING = _words(
    """
    'll align aligned aligning aligns appeal appealing appeals clash clashes conflicting contradict
    contradicts could detract detracts fit fits likely match matched matches may might mismatch
    possibly probably recommend recommended resonate resonates resonating should suit suited suits
    unappealing unlikely will would
    """
)
# Say that a statement is about what other people thought.
OTHERS = _words(
    """
    audience audiences critic critics fans others people reviewer reviewers viewer viewers
    """
)
