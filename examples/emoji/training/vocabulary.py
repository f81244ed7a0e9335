"""What the checkpoint knows: names, background colours, picture sizes and captions. Standard library only.

This module is the only source of the vocabulary. `prompts.json` beside the checkpoint is made from it:

    python examples/emoji/training/vocabulary.py examples/emoji/prompts.json
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

_EMOJI_TEXT = """
🐶 dog face|🐱 cat face|🐭 mouse face|🐹 hamster|🐰 rabbit face|🦊 fox|🐻 bear|🐼 panda|🐨 koala|🐯 tiger face
🦁 lion|🐮 cow face|🐷 pig face|🐸 frog|🐵 monkey face|🐔 chicken|🐧 penguin|🐦 bird|🐤 baby chick|🦉 owl
🐺 wolf|🐗 boar|🐴 horse face|🦄 unicorn|🐝 honeybee|🐛 caterpillar|🦋 butterfly|🐌 snail|🐞 ladybug|🐢 turtle
🐍 snake|🐙 octopus|🦀 crab|🐠 tropical fish|🐬 dolphin|🐳 whale|🦈 shark|🐘 elephant|🦒 giraffe|🐪 camel
🦓 zebra|🐊 crocodile|🦔 hedgehog|🦇 bat|🦜 parrot|🦩 flamingo|🦚 peacock|🦖 dinosaur|🐉 dragon|🦌 deer
🐑 sheep|🕷 spider|🦂 scorpion|🐿 squirrel
🌵 cactus|🎄 christmas tree|🌲 pine tree|🌳 round tree|🌴 palm tree|🍀 four leaf clover|🍁 maple leaf|🍄 mushroom
🌹 rose|🌻 sunflower|🌷 tulip|🌸 cherry blossom
🍎 red apple|🍏 green apple|🍐 pear|🍊 tangerine|🍋 lemon|🍌 banana|🍉 watermelon|🍇 grapes|🍓 strawberry
🍒 cherries|🍑 peach|🍍 pineapple|🥝 kiwi fruit|🥑 avocado|🍅 tomato|🍆 eggplant|🥕 carrot|🌽 corn|🥦 broccoli
🌶 hot pepper|🍞 bread|🥐 croissant|🥨 pretzel|🧀 cheese|🍳 fried egg|🍔 hamburger|🍟 french fries|🍕 pizza
🌭 hot dog|🌮 taco|🍣 sushi|🍦 ice cream|🍩 donut|🍪 cookie|🎂 birthday cake|🧁 cupcake|🍫 chocolate bar|🍬 candy
🍭 lollipop|🍯 honey pot|☕ cup of coffee|🍺 mug of beer|🍷 glass of wine|🍿 popcorn
🚗 car|🚕 taxi|🚌 bus|🚓 police car|🚑 ambulance|🚒 fire engine|🚚 truck|🚜 tractor|🚲 bicycle|🛵 scooter
🏍 motorcycle|🚂 steam train|🚀 rocket|✈ airplane|🚁 helicopter|⛵ sailboat|🚢 ship|🛸 flying saucer|⚓ anchor
🏠 house|🏰 castle|🗽 statue of liberty|🌋 volcano|⛺ tent|⛲ fountain|🎡 ferris wheel
☀ sun|🌙 crescent moon|⭐ star|☁ cloud|🌈 rainbow|⚡ lightning bolt|❄ snowflake|⛄ snowman|🔥 fire|💧 droplet
🌊 ocean wave|🌍 planet earth|🪐 ringed planet|☂ umbrella
⌚ watch|📱 mobile phone|💻 laptop|📷 camera|📺 television|💡 light bulb|🔦 flashlight|📚 books|✏ pencil|✂ scissors
🔑 key|🔒 padlock|🔨 hammer|🔧 wrench|🧲 magnet|🔔 bell|🎁 gift|🎈 balloon|🏆 trophy|⚽ soccer ball
🏀 basketball|🎾 tennis ball|🏈 american football|🎸 guitar|🎹 piano|🎺 trumpet|🎻 violin|🥁 drum|🎲 dice
🎨 artist palette|👑 crown|💎 diamond|💍 ring|👓 glasses|🎩 top hat|👟 sneaker|👜 handbag|🎒 backpack|🧸 teddy bear
🪑 chair|🛁 bathtub|🚪 door|🕯 candle|📦 cardboard box|💰 money bag|🔭 telescope|🔬 microscope|🧭 compass|🎃 pumpkin
💀 skull|👻 ghost|👽 alien|🤖 robot|❤ red heart|💣 bomb|🎧 headphones|🎤 microphone|⏳ hourglass|👀 eyes|👕 t-shirt
👗 dress
😀 grinning face|😂 face with tears of joy|😍 face with heart eyes|😎 face with sunglasses|😢 crying face
😡 angry face|😱 screaming face|😴 sleeping face|🤓 nerd face|🤢 nauseated face|🥶 cold face|🤠 cowboy|😈 devil face
🤡 clown face|🎅 santa claus
"""

EMOJI: dict[str, str] = {}
"""Name -> character, in the order of `NAMES`."""
for _entry in _EMOJI_TEXT.strip().replace("\n", "|").split("|"):
    _character, _name = _entry.split(" ", 1)
    EMOJI[_name] = _character

NAMES: tuple[str, ...] = tuple(EMOJI)

COLORS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (20, 20, 20),
    "gray": (140, 140, 140),
    "red": (215, 50, 50),
    "orange": (245, 140, 40),
    "yellow": (245, 215, 70),
    "green": (60, 165, 80),
    "blue": (60, 105, 215),
    "purple": (135, 70, 180),
    "pink": (245, 155, 190),
}
"""Background colours as 8-bit sRGB."""

SIZES: tuple[tuple[int, int], ...] = ((128, 128), (160, 96), (96, 160))
"""The trained picture sizes as (height, width) in pixels, the native one first."""

ALIASES = {"grey": "gray", "the": "a"}
"""Words that share another word's embedding row."""

# Plural and mass nouns, names, and one word that happened to be trained without an article.
_NO_ARTICLE = {
    *("grapes", "cherries", "french fries", "books", "scissors", "glasses", "headphones", "eyes"),
    *("bread", "cheese", "corn", "broccoli", "sushi", "popcorn", "fire"),
    *("planet earth", "santa claus", "lightning bolt"),
}

# {n}: name, {a}: name with its article, {c}: colour. A repeated line is drawn more often.
TEMPLATES = (
    "{n}",
    "{a}",
    "{a}",
    "{n} emoji",
    "an emoji of {a}",
    "a picture of {a}",
    "an icon of {a}",
    "a photo of {a}",
)
COLOR_TEMPLATES = (
    "{n} on a {c} background",
    "{a} on a {c} background",
    "{a} on a {c} background",
    "{a} on {c}",
    "{n}, {c} background",
    "an emoji of {a} on a {c} background",
    "a picture of {a} on a {c} background",
    "a photo of {a} on a {c} background",
    "an icon of {a}, {c} background",
)


def with_article(name: str) -> str:
    """`a fox`, `an owl`, `a unicorn`; plural and mass nouns stay bare: `grapes`, `bread`."""
    if name in _NO_ARTICLE:
        return name
    return ("an " if name[0] in "aeiou" and not name.startswith("uni") else "a ") + name


def fill(template: str, name: str, color: str = "") -> str:
    """One template as a caption."""
    return template.format(n=name, a=with_article(name), c=color).replace("on a orange", "on an orange")


def prompt(name: str, color: str | None = None) -> str:
    """The prompt that the metrics use: `a fox`, or `a fox on a blue background`."""
    return fill("{a}", name) if color is None else fill("{a} on a {c} background", name, color)


def random_caption(name: str, color: str, mention: bool, rng: random.Random) -> str:
    """A training caption, which mentions the background colour or stays silent about it."""
    return fill(rng.choice(COLOR_TEMPLATES if mention else TEMPLATES), name, color)


def word_coverage() -> list[str]:
    """Captions that together contain every word a caption can use (to find the token ids that are trained)."""
    plain = [fill(template, name) for name in NAMES for template in TEMPLATES]
    colored = [fill(template, name, color) for name in NAMES[:3] for color in COLORS for template in COLOR_TEMPLATES]
    return [*plain, *colored, ".", ","]


def prompts_json() -> str:
    """The text of `prompts.json`."""
    native, *others = [f"{width}x{height}" for height, width in SIZES]
    content = {
        "names": NAMES,
        "characters": EMOJI,
        "background_colors": list(COLORS),
        "templates": list(dict.fromkeys(TEMPLATES)),
        "color_templates": list(dict.fromkeys(COLOR_TEMPLATES)),
        "sizes": [native, *(f"{size} (width x height)" for size in others)],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PROMPTS_JSON")
    Path(sys.argv[1]).write_text(prompts_json(), encoding="utf-8")
