"""Wrong gin files: each is refused with its file and line, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import TINY
from helpers.forks import fork_command

Write = Callable[..., str]
Cli = Callable[..., Result]
Refused = Callable[[Result, str], str]
Rejected = Callable[..., str]

UNKNOWN = {
    "component": ("train.loss = @losses.Hing()", r"unknown component losses\.Hing \(did you mean losses\.Hinge\?\)"),
    "component, short": ("train.loss = @Hinge()", r"unknown component Hinge \(did you mean losses\.Hinge\?\)"),
    "component, case": ("train.loss = @losses.hinge()", r"unknown .* \(did you mean losses\.Hinge\?\)"),
    "component, far off": ("train.loss = @quux.Xyzzy()", r"unknown component quux\.Xyzzy; `pggan-kit plugins list`"),
    "component, bound": ("optimizers.Adm.lr = 1.0", r"unknown component optimizers\.Adm \(did you mean opt"),
    "parameter": ("optimizers.Adam.betta1 = 0.5", r"optimizers\.Adam has no parameter betta1 \(did you mean beta1\?\)"),
    "parameter, scoped": ("d/optimizers.Adam.l = 0.5", r"optimizers\.Adam has no parameter l\b"),
    "setting": ("train.sede = 1", r"train has no parameter sede \(did you mean seed\?\)"),
    "schedule setting": ("schedule.size = (4, 8)", r"schedule has no parameter size \(did you mean sizes\?\)"),
    "root": ("trian.seed = 1", r"unknown component trian \(did you mean train\?\)"),
    "macro": ("SEED = 1\ntrain.seed = %SED", r"unknown macro %SED \(did you mean SEED\?\)"),
    "macro in a list": ("train.observers = [%NONE]", r"unknown macro %NONE"),
    "singleton parameter": ("x/gin.singleton.constructer = @losses.Hinge", r".*did you mean constructor\?"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_name_is_refused_with_the_nearest_one(case: str, rejected: Rejected):
    lines, pattern = UNKNOWN[case]
    line = 17 + lines.count("\n")
    rejected(rf"tiny\.gin:{line}: {pattern}", lines)


UNUSED = [
    "losses.NonSaturating.penalties = []",
    "x/optimizers.Adam.lr = 1.0",
    "SPARE = 3",
    "penalties.R1.weight = 1.0",
    "x/gin.singleton.constructor = @losses.Hinge",
]


@pytest.mark.parametrize("line", UNUSED)
def test_a_binding_that_nothing_uses_is_refused(line: str, rejected: Rejected):
    name = line.split(" =")[0]
    rejected(rf"tiny\.gin:17: nothing in this experiment uses {name}; remove", line)
    rejected(rf"-b '{name} = .*': nothing .* uses {name};", args=["-b", line])


def test_a_misspelt_macro_is_told_from_the_one_that_was_meant(rejected: Rejected):
    lines = ("FOLDER = 8", "train.latent_size = %FOLDER")
    message = (
        r"-b 'FOLDR = 4': nothing in this experiment uses FOLDR \(did you mean FOLDER\?\); remove it, or write %FOLDR"
    )
    rejected(message, *lines, args=["-b", "FOLDR = 4"])


def test_a_binding_that_inner_scopes_override_everywhere_is_refused(rejected: Rejected):
    rejected(
        r"-b 'optimizers\.Adam\.lr = 0\.5': nothing in this experiment uses optimizers\.Adam\.lr",
        "g/optimizers.Adam.lr = 1e-3",
        "d/optimizers.Adam.lr = 2e-3",
        args=["-b", "optimizers.Adam.lr = 0.5"],
    )


def test_a_binding_of_an_included_file_that_nothing_uses_is_listed_as_idle(tiny: Write, cli: Cli, stub: str):
    Path("base.gin").write_text(TINY + "penalties.R1.weight = 3.0\n")
    result = cli("config", "check", tiny(base="include 'base.gin'\n"), "--plugin", stub)
    assert result.exit_code == 0
    assert "idle: penalties.R1.weight = 3.0  (base.gin:17)" in result.stdout


TWICE = {
    "a setting": (
        "train.seed = 1\ntrain.seed = 2",
        r":18: train\.seed is bound twice, first at twice\.gin:17; remove one of the two bindings$",
    ),
    "a macro": ("SEED = 1\ntrain.seed = %SEED\nSEED = 2", r":19: SEED is bound twice, first at twice\.gin:17"),
    "in a scope": (
        "optimizers.Adam.lr = 1.0\nd/optimizers.Adam.lr = 1.0\nd/optimizers.Adam.lr = 2.0",
        r":19: d/optimizers\.Adam\.lr is bound twice, first at twice\.gin:18",
    ),
    "in a block": (
        "optimizers.Adam.lr = 1.0\noptimizers.Adam:\n    lr = 2.0",
        r":19: optimizers\.Adam\.lr is bound twice, first at twice\.gin:17",
    ),
    "around an include": ("train.seed = 1\ninclude 'seed.gin'\ntrain.seed = 3", r":19: train\.seed is bound twice"),
    "a key": ("train.micro_batch = {4: 2, 4: 4}", r":17: the dict has the key 4 twice; remove one"),
    "a key in a later line": ("train.micro_batch = {\n    4: 2,\n    8: 1,\n    4: 4,\n}", r":20: .*key 4 twice"),
    "a key of an inner dict": ("train.observers = [{'a': {'b': 1, 'b': 2}}]", r":17: the dict has the key 'b' twice"),
}


@pytest.mark.parametrize("case", TWICE)
def test_what_a_file_binds_twice_is_refused(case: str, tiny: Write, cli: Cli, stub: str, refused: Refused):
    lines, pattern = TWICE[case]
    tiny()
    Path("seed.gin").write_text("train.seed = 2\n")
    Path("twice.gin").write_text(f"{TINY}{lines}\n")
    refused(cli("config", "check", "twice.gin", "--plugin", stub), rf"twice\.gin{pattern}")


UNREAD = {
    "above the last size": (
        "schedule.batch_size = {4: 4, 32: 2}",
        r":17: no stage reads the key 32 of schedule\.batch_size: .*; remove the key$",
    ),
    "of a component": ("d/optimizers.Adam.lr = {4: 1e-3, 64: 1e-4}", r":17: .* the key 64 of d/optimizers\.Adam\.lr:"),
    "of a macro": ("BATCH = {4: 4, 32: 2}\nschedule.batch_size = %BATCH", r":17: .* the key 32 of schedule\.batch"),
    "below the first size": ("train.micro_batch = {2: 4, 4: 2}", r":17: .* the key 2 of train\.micro_batch"),
    "between two sizes": ("train.micro_batch = {4: 4, 9: 2, 10: 2, 12: 1}", r":17: .* the keys 9, 10 of"),
    "above sizes with macros": (
        "MIDDLE = 8\nSIZES = (4, %MIDDLE)\nschedule.sizes = %SIZES\ntrain.micro_batch = {4: 4, 16: 2}",
        r":20: .* the key 16 of train\.micro_batch: the stages have the heights 4, 8 \(see tiny\.gin:18\)",
    ),
}


@pytest.mark.parametrize("case", UNREAD)
def test_a_key_that_no_stage_reads_is_refused(case: str, rejected: Rejected):
    lines, pattern = UNREAD[case]
    rejected(rf"tiny\.gin{pattern}", *lines.split("\n"))


def test_an_override_with_a_key_that_no_stage_reads_is_refused(rejected: Rejected):
    rejected(
        r"-b 'schedule\.batch_size = .*': no stage reads the key 32 .* \(see tiny\.gin:1\)",
        args=["-b", "schedule.batch_size = {4: 4, 32: 2}"],
    )


BROKEN = {
    "unclosed bracket at the end": (
        "train.observers = [",
        r":1[78]: broken gin syntax: .*never closed; look after .*:16",
    ),
    "unclosed bracket before a line": ("train.observers = [\ntrain.seed = 1", r":1[78]: broken gin syntax"),
    "mixed brackets": ("train.observers = [1, (2]", r":17: broken gin syntax"),
    "unclosed string": ("train.device = 'cpu", r":17: broken gin syntax"),
    "unclosed long string": ("train.device = '''cpu", r":1[78]: broken gin syntax"),
    "missing value": ("train.seed =", r":17: broken gin syntax"),
    "missing =": ("train.seed 3", r":17: broken gin syntax"),
    "only a name": ("train.seed", r":1[78]: broken gin syntax"),
    "two values": ("train.seed = 3 4", r":17: broken gin syntax"),
    "two =": ("train.seed = 3 = 4", r":17: broken gin syntax"),
    "a sum": ("train.seed = 3 + 4", r":17: broken gin syntax"),
    "a bare word": (
        "train.device = cpu",
        r":17: broken gin syntax: `cpu` is not a value: quote strings, write %NAME for a macro and @NAME",
    ),
    "a call with arguments": ("train.loss = @losses.Hinge(1)", r":17: broken gin syntax"),
    "a dollar": ("train.seed = $3", r":17: broken gin syntax"),
    "a dollar at the start": ("$ = 3", r":17: broken gin syntax"),
    "no parameter": ("train. = 3", r":17: broken gin syntax"),
    "a slash at the start": ("/train.seed = 3", r":17: broken gin syntax"),
    "spaces in a name": ("train . seed = 3", r":17: broken gin syntax"),
    "a tab in a block": ("optimizers.Adam:\n    beta1 = 0.5\n\tbeta2 = 0.5", r":1[89]: broken gin syntax"),
    "wrong unindent": ("    train.seed = 1\n  train.tick = 8", r":18: broken gin syntax"),
    "an empty block": ("optimizers.Adam:\ntrain.seed = 1", r":18: broken gin syntax"),
    "a list as key": ("architectures.PGGAN.channels = {[4]: 4}", r":1[67]: broken gin syntax here or in the statement"),
    "too deep": (f"train.observers = {'[' * 5000}{']' * 5000}", r":1[67]: broken gin syntax"),
    "a zero byte": ("train.device = 'a\0b'", r":17: broken gin syntax: .* an invisible character \(U\+0000,"),
    "a space of a web page": (
        "train.seed\u00a0= 1",
        r":17: broken gin syntax: the line has an invisible character \(U\+00A0, NO-BREAK SPACE\): remove it, or write",
    ),
    "a mark of another file": ("\ufefftrain.seed = 1", r":17: .*\(U\+FEFF, ZERO WIDTH NO-BREAK SPACE\): remove it"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_syntax_is_refused_at_its_line(case: str, rejected: Rejected):
    text, pattern = BROKEN[case]
    rejected(rf"tiny\.gin{pattern}", text)


ELEMENTS = {
    "train.observers[0] = 1": r"write train\.observers = \[@observers\.Meddler\(\)\] with your change in it$",
    "train.observers.0 = 1": r"write train\.observers = \[@observers",
    "train.observers += [1]": r"write train\.observers = \[@observers",
    "train.observers[0].critical = False": r"write train\.observers = \[@observers",
    "schedule.sizes[2] = 32": r"write schedule\.sizes = \(4, 8, 16\) with",
    "train.micro_batch[8] = 2": r"write train\.micro_batch = \{4: 4\} with",
    "train.micro_batch{8} = 2": r"write train\.micro_batch = \{4: 4\} with",
    "train.metrics[0] = 1": r"write train\.metrics = \.\.\. with all its elements$",
}


@pytest.mark.parametrize("line", ELEMENTS)
def test_a_binding_of_one_element_says_how_to_bind_all(line: str, rejected: Rejected):
    lines = ["train.observers = [@observers.Meddler()]", "train.micro_batch = {4: 4}"]
    pattern = f"broken gin syntax: a list or dict can only be bound as a whole; {ELEMENTS[line]}"
    rejected(rf"tiny\.gin:19: {pattern}", *lines, line)
    rejected(rf"^error: -b '.*': {pattern}", *lines, args=["-b", line])


def test_a_group_of_settings_as_a_value_is_refused(rejected: Rejected):
    rejected(
        r"tiny\.gin:17: train\.loss: @schedule is no component but a group of settings, which has its own lines: sched",
        "train.loss = @schedule()",
    )


def test_a_parameter_of_a_setting_names_the_component(rejected: Rejected):
    rejected(
        r"tiny\.gin:17: train\.loss is a setting: parameters belong to the component .* as in KIND\.NAME\.penalties = ",
        "train.loss.penalties = []",
    )


def test_a_file_of_the_other_kind_is_refused_with_its_command(tiny: Write, cli: Cli, stub: str, refused: Refused):
    tiny()
    Path("ablation.gin").write_text("SEEDS = (0, 1)\nablate.seeds = %SEEDS\nablate.base = 'tiny.gin'\n")
    for command in (("train",), ("plan",), ("config", "check")):
        message = refused(cli(*command, "ablation.gin", "--plugin", stub), r"ablation\.gin:2: ablate\.seeds has no")
        assert "`pggan-kit ablate` runs" in message
    message = refused(cli("ablate", "tiny.gin", "--plugin", stub), r"tiny\.gin:1: schedule\.sizes has no place here")
    assert "`pggan-kit train` trains" in message and "ablate.base" in message


@pytest.mark.parametrize("line", ["import os", "from os import path", "import os.path as p", "from __gin__ import x"])
def test_an_import_is_refused(line: str, rejected: Rejected):
    rejected(r"tiny\.gin:17: a config may not import modules; .*--plugin FILE", line)


OVERRIDES = {
    "import os": "a config may not import",
    "include 'tiny.gin'": "an override cannot include a file",
    "train.seed": "broken gin syntax",
    "train.seed = [": "broken gin syntax: .* never closed$",
    "": "binds nothing",
    "train.seed = 'x'": r"train\.seed must be a whole number, not 'x'",
}


@pytest.mark.parametrize("text", OVERRIDES)
def test_a_wrong_override_is_refused(text: str, rejected: Rejected):
    assert f"-b '{text}': " in rejected(OVERRIDES[text], args=["-b", text])


def test_a_missing_include_is_refused_where_it_is_included(rejected: Rejected):
    rejected(
        r"tiny\.gin:17: includes nope\.gin: no such file; the path of an include is relative to the",
        "include 'nope.gin'",
    )


@pytest.mark.parametrize(("first", "second"), [("tiny.gin", ""), ("a.gin", "include 'tiny.gin'\n")])
def test_an_include_loop_is_refused(first: str, second: str, rejected: Rejected):
    Path("a.gin").write_text(second)
    rejected(r"\.gin:\d+: includes tiny\.gin: includes itself", f"include '{first}'")


LOOPS = {
    "macro": ("A = %B\nB = %A\ntrain.seed = %A", r":18: B refers back to itself"),
    "component": ("losses.Hinge.penalties = [@losses.Hinge()]", r":17: losses\.Hinge\.penalties refers back to itself"),
    "singleton": (
        "losses.Hinge.penalties = [@x/gin.singleton()]\nx/gin.singleton.constructor = @losses.Hinge",
        r"refers back to itself",
    ),
}


@pytest.mark.parametrize("case", LOOPS)
def test_a_loop_of_references_is_refused(case: str, rejected: Rejected):
    lines, pattern = LOOPS[case]
    rejected(rf"tiny\.gin.*{pattern}|tiny\.gin{pattern}", *lines.split("\n"))


NO_COMPONENTS = {
    "no parentheses": ("@losses.Hinge", r"must be a component, as @losses\.NAME\(\), not @losses\.Hinge without its"),
    "another kind": ("@switches.Hard()", r"must be a component, as @losses\.NAME\(\), not @switches\.Hard\(\)"),
    "a string": ("'hinge'", r"must be a component, as @losses\.NAME\(\), not 'hinge'"),
    "None": ("None", r"must be a component, as @losses\.NAME\(\), not None"),
    "singleton without a scope": ("@gin.singleton()", r"a shared component is written @NAME/gin\.singleton\(\)"),
    "singleton of nothing": ("@x/gin.singleton()", r"a shared component is written @NAME/gin\.singleton\(\)"),
}


@pytest.mark.parametrize("case", NO_COMPONENTS)
def test_a_value_that_is_not_a_component_of_the_kind_is_refused(case: str, rejected: Rejected):
    value, pattern = NO_COMPONENTS[case]
    rejected(rf"tiny\.gin:17: train\.loss:? {pattern}", f"train.loss = {value}")


def test_a_list_with_a_component_of_another_kind_is_refused(rejected: Rejected):
    rejected(
        r":17: losses\.Hinge\.penalties .* not \[@penalties\.R1\(\), @switches",
        "losses.Hinge.penalties = [@penalties.R1(), @switches.Hard()]",
    )


def test_a_complaint_names_the_binding_of_the_right_scope(rejected: Rejected):
    rejected(
        r":17: optimizers\.Adam\.lr must be above 0, and is -1\.0$",
        "optimizers.Adam.lr = -1.0",
        "d/optimizers.Adam.lr = 2e-3",
    )
    rejected(
        r":18: d/optimizers\.Adam\.lr must be above 0, and is -0\.002$",
        "optimizers.Adam.lr = 1.0",
        "d/optimizers.Adam.lr = -2e-3",
    )


def test_a_complaint_about_a_macro_names_both_places(rejected: Rejected):
    rejected(
        r":17: optimizers\.Adam\.lr must be above 0, and is -1 \(%RATE is defined at tiny\.gin:18\)$",
        "optimizers.Adam.lr = %RATE",
        "RATE = -1",
    )


def test_a_byte_order_mark_at_the_start_of_a_file_is_no_part_of_it(tiny: Write, cli: Cli, stub: str):
    Path(tiny()).write_text(f"\ufeffinclude 'base.gin'\n{TINY}", encoding="utf-8")
    Path("base.gin").write_text("\ufefftrain.seed = 1\n", encoding="utf-8")
    result = cli("config", "check", "tiny.gin", "--plugin", stub)
    assert result.exit_code == 0, result.stderr


def test_files_that_are_not_configs_are_refused(
    cli: Cli, stub: str, refused: Refused, rejected: Rejected, tmp_path: Path
):
    (tmp_path / "folder.gin").mkdir()
    (tmp_path / "binary.gin").write_bytes(bytes(range(256)))
    (tmp_path / "empty.gin").write_bytes(b"")
    refused(cli("train", "folder.gin", "--plugin", stub), r"config folder\.gin: cannot be read, because it is a folder")
    refused(cli("train", "binary.gin", "--plugin", stub), r"config binary\.gin: cannot be read .*; save it as UTF-8$")
    refused(cli("train", "nope.gin", "--plugin", stub), r"config nope\.gin: no such file")
    refused(cli("train", "a\0.gin", "--plugin", stub), r"config a.\.gin: cannot be read \(embedded null byte\)")
    refused(cli("train", "empty.gin", "--plugin", stub), r"schedule needs a value for sizes")
    rejected(r"tiny\.gin:17: includes binary\.gin: cannot", "include 'binary.gin'")


def test_a_config_that_may_not_be_read_is_refused(
    tiny: Write, cli: Cli, stub: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    file = tiny()

    def deny(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", deny)  # chmod does not keep root out
    refused(cli("train", file, "--plugin", stub), r"config tiny\.gin: cannot be read \(.*Permission denied")


def test_a_real_process_exits_with_2_and_one_line(tiny: Write, stub: str, tmp_path: Path):
    process = fork_command("train", tiny("optimizers.Adam.lr = -1"), "--plugin", stub)
    assert process.wait() == 2
    assert process.read_output() == ""
    errors = process.read_errors()
    assert errors.startswith("error: tiny.gin:1") and errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()
