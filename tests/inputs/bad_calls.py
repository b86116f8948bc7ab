"""Calls of the command line that cannot be served, with exit status and words of the answer.

NAME stands for a name of 250 characters. 1: the input is wrong; 2: the arguments are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bad_world import LONG

YAML = """
nowhere.yaml: no such file | folder: is a folder | folder.yaml: is a folder | locked.yaml: no such
empty.yaml: None is not | binary.yaml: UTF-8 | zeros.yaml: not valid YAML | latin.yaml: UTF-8
cut.yaml: not valid YAML | tab.yaml: not valid YAML | list.yaml: is not of type mapping
object.yaml: required property | null.yaml: None is not | number.yaml: is not of type mapping
text.yaml: is not of type mapping | two.yaml: single document | python.yaml: not valid YAML
date.yaml: not valid YAML | bomb.yaml: more than | circle.yaml: holds itself | deep.yaml: nested
anchor.yaml: undefined alias | large.yaml: larger than | keys.yaml: key 1 | yte.yaml: run code
twice.yaml: 'seeds' stands twice | deep_twice.yaml: 'kind' stands twice | NAME.yaml: no such file
NAME/NAME.yaml: no such file | /dev/null: no such file
"""
FOLDERS = """
nowhere: no campaign.yaml | good.yaml: no campaign.yaml | folder: no campaign.yaml
kept/empty: None is not | kept/binary: UTF-8 | kept/object: required property
kept/list: is not of type mapping | kept/wrong: required property | NAME: no campaign.yaml
kept/folder: no campaign.yaml | /dev/null: no campaign.yaml | kept/yte: run code
"""
CALLS = """
1 retry nowhere: found none | 1 retry good.yaml: found none | 1 retry NAME: found none
2 retry: folder | 2 retry done --everything: unknown arguments | 2 report done extra: unknown
2 : COMMAND | 2 nothing: invalid choice | 2 --nothing: COMMAND | 2 schema nothing: invalid choice
1 plan nowhere.yaml: no such file | 1 plan object.yaml: required | 1 plan yte.yaml: run code
1 plan bomb.yaml: more than | 1 plan folder: is a folder | 1 plan good.yaml --tflops 0: positive
1 plan good.yaml --tflops -1: positive | 1 plan good.yaml --tflops nan: positive
1 plan good.yaml --tflops inf: positive | 2 plan good.yaml --tflops x: invalid float
2 plan good.yaml --device tpu: invalid choice | 2 plan good.yaml --example-tokens 0: from 1
2 plan good.yaml --example-tokens 1.5: invalid int
2 plan good.yaml --example-tokens 1{64}: from 1
2 plan: file | 1 show nowhere: cannot be read | 1 show folder: cannot be read | 1 show NAME: read
1 show good.yaml: not JSON | 1 show empty.json: not JSON | 1 show binary.json: not UTF-8
1 show list.json: expected a JSON object | 1 show object.json: schema_version | 2 show: CELL
1 show deep.json: nested | 1 show nan.json: NaN | 1 show newer.json: newer prunebench
1 show edited.json: changed after | 1 show unsealed.json: checksum | 1 show alien.json: missing
1 compare nowhere done: no campaign.yaml | 1 compare good.yaml done: no campaign.yaml
1 compare folder folder: no campaign.yaml | 2 compare done: required
1 import nowhere.gguf out: no such file | 1 import folder out: no such file | 2 import x: required
1 import empty.gguf out: not a GGUF | 1 import binary.gguf out: not a GGUF
1 import cut.gguf out: cut short | 1 import good.yaml out: not a GGUF | 1 import NAME out: no such
1 import cut.gguf folder: exists already | 1 fetch nobody out: unknown name
1 fetch ../x out: unknown name | 1 fetch smollm2-135m-instruct folder: no model's folder
1 fetch smollm2-135m-instruct good.yaml: no model's | 2 fetch: required
1 fetch smollm2-135m-instruct good.yaml/x: Not a directory
1 export nowhere out --uniform: no config.json | 1 export good.yaml out --uniform: no config.json
1 export models/empty out --uniform: not valid JSON | 2 export models/noise out: --uniform
1 export models/binary out --uniform: not valid JSON | 1 export models/list out --uniform: object
1 export models/object out --uniform: no safetensors
1 export models/noise folder --uniform: exists
1 export models/weightless out --uniform: no safetensors
1 export models/noise out --uniform: token
1 export models/outside out --uniform: weight_map
2 export models/noise out --uniform trim: choice
1 convert nowhere out: config.json | 1 convert good.yaml out: config.json | 2 convert x: required
1 convert models/empty out: not valid JSON | 1 convert models/binary out: not valid JSON
1 convert models/list out: expected an object | 1 convert models/object out: model type None
1 convert models/weightless out: no conversion is needed | 1 convert NAME out: config.json
1 new Bad: small letters | 1 new ../bad: small letters | 1 new bad/name: small letters
1 new 1bad: small letters | 1 new shared: small letters | 1 new random: already taken
1 new NAME: too long | 1 new good --in good.yaml: cannot be made | 1 new fine --in plugins: exists
1 new good --in /proc/nowhere: cannot be made | 2 new: name
1 list nowhere: no such folder | 1 list folder: no method.yaml | 1 list binary.yaml: UTF-8
1 list NAME: no such folder | 1 list cut.yaml: not valid YAML | 1 list yte.yaml: run code
1 check-method nowhere: no such folder | 1 check-method good.yaml: expected a folder
1 check-family nowhere: no such folder | 1 check-family good.yaml: expected a folder
1 claims --out out --config nowhere.yaml: no such file | 2 claims: --out
1 claims --out out --config folder: is a folder | 2 claims --out out --device tpu: invalid choice
1 claims --out out --config object.yaml: required
1 claims --out done --config good.yaml: another
1 claims --out out --config good.yaml --device cuda: no GPU
1 claims --out good.yaml --config good.yaml: exists
1 pretrain --recipe nowhere.yaml --out out: no such file | 2 pretrain --out out: --world --recipe
1 pretrain --recipe object.yaml --out out: required
1 pretrain --recipe list.yaml --out out: object
1 pretrain --recipe yte.yaml --out out: run code
1 pretrain --world nowhere --out out: demo world
2 pretrain --recipe r --out out --minutes nan: positive
2 pretrain --recipe r --out o --minutes 0: pos
2 pretrain --recipe r --out out --minutes inf: positive
2 pretrain --recipe r --out o --threads 0: from
1 prune --spec nowhere.json --out out: No such file
1 prune --spec folder --out out: Is a directory
1 prune --spec binary.json --out out: UTF-8 | 1 prune --spec list.json --out out: JSON object
1 prune --spec nan.json --out out: nan | 1 prune --spec cut.yaml --out out: not valid JSON
1 prune --spec object.json --out folder: Is a directory | 2 prune --out out: --spec
1 prune --spec object.json --out good.yaml/out: exists | 2 evaluate --spec {} --out out: inputs
2 recover x --spec {} --out out --threads 0: from 1
2 step --spec {} --out out --memory -1: from 0
2 profile x --spec {} --out out --timeout -1: from 0
2 prune --spec {} --out out --device tpu: choice
2 world: --out | 1 leak done: no such file
"""


@dataclass(frozen=True)
class Call:
    """Arguments, the exit status, and words that the one line on stderr must have."""

    arguments: tuple[str, ...]
    status: int
    words: str

    @property
    def id(self) -> str:
        """As one would type it."""
        return " ".join(self.arguments).replace(LONG, "NAME") or "without arguments"


def calls() -> list[Call]:
    """All of them."""
    return [*_on_files(), *_on_folders(), *_others()]


def _on_files() -> Iterator[Call]:
    for name, words in _pairs(YAML):
        yield Call(("validate", name), 1, words)


def _on_folders() -> Iterator[Call]:
    for command in ("report", "check", "failures", "status", "leaderboard", "leak"):
        for name, words in _pairs(FOLDERS):
            yield Call((command, name), 1, words)


def _others() -> Iterator[Call]:
    for call, words in _pairs(CALLS):
        status, *arguments = call.split()
        yield Call(tuple(arguments), int(status), words)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """What stands before a colon, and after it."""
    for part in text.strip().replace("\n", " | ").split(" | "):
        given, _, words = part.replace("NAME", LONG).replace("1{64}", "1" * 64).partition(":")
        yield given.strip(), words.strip()
