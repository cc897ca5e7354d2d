"""What the built-in speakers say: short sentences written for this corpus, rich in visible speech sounds.

Each takes 2 to 3.5 s to speak and has bilabials (m b p), most have labiodentals (f v) and rounded vowels.
The first `N_SHARED_POOL` may be spoken by anyone; the rest are kept for speakers outside training.
"""

from __future__ import annotations

from s2f_rl.errors import UserError

SENTENCES: tuple[str, ...] = (
    "My mother bought a purple coat for Bob.",
    "Five brave women moved the piano upstairs.",
    "Put the blue balloon above the bathroom door.",
    "The farmer's puppy jumped over a muddy puddle.",
    "Peter found a very old map of Rome.",
    "We both hope for warm weather by Monday.",
    "A big moose wandered through the apple farm.",
    "Please move the table before the movers come.",
    "Some people prefer soup, but I love fresh bread.",
    "Her baby boy waved from the back of the bus.",
    "The cook poured warm milk over the oatmeal.",
    "Why would a bear climb up a maple tree?",
    "Fifty sheep crossed the bumpy wooden bridge.",
    "Mom bakes perfect blueberry pie for Pam.",
    "You should use a smooth new broom.",
    "The vet saved the poor bird from a fever.",
    "Both of my brothers play bass in a band.",
    "Imagine a palm tree beside the open pool.",
    "The boat moved up the foamy river slowly.",
    "Pack my yellow bag with five small plums.",
    "No problem, the bakery opens before seven.",
    "She bumped her elbow on the marble column.",
    "Who put all the wool blankets in the van?",
    "The shop above the pub sells amber lamps.",
    "Maybe we could meet Paul for breakfast tomorrow.",
    "A lamb and a goat slept behind the barn.",
    "Four poets prepared a poem about the moon.",
    "The empty cup fell off the broken shelf.",
    "Bring your own umbrella if the rain comes back.",
    "My uncle from Maine makes maple furniture.",
    "Bobby spoke to whoever would open the book.",
    "Pink foam floated up past the swimmers' feet.",
    "The brown fox barely escaped from the mob.",
    "How many apples may I put in the pot?",
    "A famous painter moved into the beach house.",
    "Wipe both of your boots before you come up.",
    "The bishop wore a rough robe of purple wool.",
    "I bet the mayor will never vote for that plan.",
    "Beware of the bull behind the broken fence.",
    "Our team won both games by a few points.",
    "Amy tried to wrap the vase in bubble paper.",
    "The pump in the basement broke on Wednesday.",
    "Fold the map up and give it back to me.",
    "Two blue buses passed by the museum at noon.",
    "Would you move over and make some room?",
    "The plumber measured a pipe above the oven.",
    "Bees buzz past the poppies by our front porch.",
    "Let me show you how a bamboo flute is made.",
    "Her favorite move begins with a simple bow.",
    "Grab the thumb of the glove and pull it off.",
    "A bomb of purple paint burst upon the floor.",
    "My poor goose swam home through the storm.",
    "Each member of the club has above average power.",
    "Phone me about the movie before you leave.",
    "The simple lamp by my bed burns all evening.",
    "Barb peeled the plum and threw the pit away.",
    "Never pour boiling broth into a plastic mug.",
    "The chubby robin was perched upon the pump.",
    "Some of the voters wept when the mayor moved.",
    "I keep a pair of warm mittens in my bag.",
    "Blow the foam off the top of your root beer.",
    "The empire grew from a village of five families.",
    "We watched a movie about a wolf and a bear.",
    "Popcorn and lime juice make a funny combination.",
    # from here on: only for validation and test speakers
    "A woman in a velvet hat waved from the ship.",
    "Bill may prefer to remove the wooden beam.",
    "The beautiful view made up for the bumpy drive.",
    "Do you suppose Bob would move to Peru?",
    "Five purple grapes rolled off my plate.",
    "Sam rubbed his numb palms above the warm stove.",
    "The bumblebee hovered over a white clover.",
    "My boss promised both of us a better room.",
    "Open the cupboard above the fireplace, please.",
    "A whole bunch of balloons popped at the fair.",
    "Mold grew upon the damp wall of the bathroom.",
    "Few people believed the story about the ape.",
    "Grandpa ploughed a bumpy field behind the farm.",
    "The ambulance moved fast through empty avenues.",
    "Move your foot before the big box falls.",
    "Pam bought a huge loaf of brown bread for lunch.",
    "The drummer beat a simple rhythm on the tub.",
    "We put fifteen poles around the swimming pool.",
    "Humble folk above the village keep bees.",
    "A volcano began to rumble beyond the bay.",
    "Would Emma ever pay above a hundred for a robe?",
    "The boy with the trumpet bowed and left.",
    "Maybe the porch needs a few pots of bluebells.",
    "Both wolves moved up the path in the fog.",
    "Mary proved a theorem about prime numbers.",
    "The ruby broke off from the bottom of the cup.",
    "Bake the plums with butter for forty minutes.",
    "My phone fell between the sofa and the wall.",
    "A cheap pump may never move so much foam.",
    "The new map shows every bump above the river.",
    "Paul wove a simple basket from bamboo.",
    "Who may borrow the best book about France?",
)
N_SHARED_POOL = 64
N_COMMON = 2
"""How many sentences at the start of the list everyone in training speaks under the same number."""

MAX_SENTENCES = 2 * (len(SENTENCES) - N_SHARED_POOL)
"""Most sentences for one speaker: the upper half of those of a validation speaker is unseen in training."""


def first_unseen(n_sentences: int) -> int:
    """Number of the first sentence that is evaluated for validation and test speakers: the upper half begins there.

    21 of 40, as in FaceFormer's split of VOCASET.
    """
    return n_sentences // 2 + 1


def sentence_text(speaker_index: int, number: int, n_sentences: int, training: bool) -> str:
    """Text that a speaker says under a sentence number (1-based).

    As in VOCASET a few sentences are common to all speakers and the rest differ, so that a small corpus still covers
    many phone contexts. No speaker says a text twice. For speakers outside training the numbers from
    `first_unseen(n_sentences)` on take texts that no training speaker ever says.

    Raises `UserError` when `n_sentences` is above `MAX_SENTENCES`, `ValueError` for a number out of range.
    """
    if n_sentences > MAX_SENTENCES:
        raise UserError(f"sentences={n_sentences}: the built-in list serves at most {MAX_SENTENCES} for each speaker")
    if not 1 <= number <= n_sentences:
        raise ValueError(f"sentence number {number} is not in 1..{n_sentences}")
    unseen_from = first_unseen(n_sentences)
    if not training and number >= unseen_from:
        held_out = SENTENCES[N_SHARED_POOL:]
        return held_out[(number - unseen_from + 5 * speaker_index) % len(held_out)]
    if number <= N_COMMON:
        return SENTENCES[number - 1]
    rest = N_SHARED_POOL - N_COMMON
    return SENTENCES[N_COMMON + (number - 1 - N_COMMON + 9 * speaker_index) % rest]
