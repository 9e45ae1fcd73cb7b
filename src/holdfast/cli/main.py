"""The `holdfast` command: finds the verb, hands over, turns errors into one line and an exit code.

Unusual: nothing heavy is imported before a verb needs it, so `holdfast --help` answers at once (tested).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence

from holdfast import __version__
from holdfast.cli.grammar import translated
from holdfast.errors import HoldfastError, SettingsError, did_you_mean

_SUMMARY = "Holdfast trains and runs real-time object detectors."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: words after the program's name; those of the process when None.

    Returns:
        Exit code: 0, the verb's own, that of the user's error, or 130 after Ctrl-C. A traceback means a bug
        in Holdfast.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(words))


def guarded(run: Callable[[], int]) -> int:
    """Runs a command; a user's error becomes one line and its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line when it is written
    try:
        code = run()
        sys.stdout.flush()
        return code
    except HoldfastError as error:
        print(f"holdfast: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("holdfast: stopped by Ctrl-C", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe such as `holdfast models | head` has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    words = translated(words, verbs=_VERBS)
    word, rest = (words[0], words[1:]) if words else ("help", [])
    if word in ("-h", "--help"):
        word = "help"
    if word in ("-V", "--version"):
        word = "version"
    if word not in _VERBS:
        hint = did_you_mean(word, _VERBS).strip()
        raise SettingsError(f"There is no verb '{word}'.", hint=hint or f"Verbs are {', '.join(_VERBS)}.")
    if word != "help" and any(item in ("-h", "--help") for item in rest):
        word, rest = "help", [word]
    return _VERBS[word][1](rest) or 0


def _train(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import TrainSettings

    settings = TrainSettings(**parse(TrainSettings, words))
    from holdfast import running

    running.run_train(settings)


def _resume(words: list[str]) -> None:
    from pathlib import Path

    named = bool(words) and not words[0].startswith("--") and ("=" not in words[0] or Path(words[0]).exists())
    _train([f"resume={words[0]}", *words[1:]] if named else ["resume=true", *words])


def _val(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import ValSettings

    settings = ValSettings(**parse(ValSettings, words))
    from holdfast import running

    running.run_val(settings)


def _predict(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import PredictSettings

    settings = PredictSettings(**parse(PredictSettings, words))
    from holdfast import running

    running.run_predict(settings)


def _demo(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import DemoSettings

    settings = DemoSettings(**parse(DemoSettings, words))
    from holdfast.demo import run_demo

    run_demo(settings)


def _check(words: list[str]) -> int:
    from holdfast.cli.parse import parse
    from holdfast.settings import CheckSettings

    settings = CheckSettings(**parse(CheckSettings, words))
    from holdfast.checking import run_check
    from holdfast.console import Progress

    with Progress(sys.stderr, unit=lambda count: f"{count:,} images", after=1.0) as progress:
        return run_check(settings, report=progress.show if progress.screen.live else None).exit_code


def _plan(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import PlanSettings

    settings = PlanSettings(**parse(PlanSettings, words))
    from holdfast.planning import run_plan

    run_plan(settings)


def _watch(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import WatchSettings

    settings = WatchSettings(**parse(WatchSettings, words))
    from holdfast.watching import run_watch

    run_watch(settings)


def _report(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import ReportSettings

    settings = ReportSettings(**parse(ReportSettings, words))
    from holdfast.reporting import run_report

    run_report(settings)


def _advise(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import AdviseSettings

    settings = AdviseSettings(**parse(AdviseSettings, words))
    from holdfast.advising import run_advise

    run_advise(settings)


def _compare(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import CompareSettings

    settings = CompareSettings(**parse(CompareSettings, words))
    from holdfast.comparing import run_compare

    run_compare(settings)


def _benchmark(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import BenchmarkSettings

    settings = BenchmarkSettings(**parse(BenchmarkSettings, words))
    from holdfast.benchmarking import run_benchmark

    run_benchmark(settings)


def _tune(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import TuneSettings

    settings = TuneSettings(**parse(TuneSettings, words))
    from holdfast.tune.search import run_tune

    run_tune(settings)


def _certify(words: list[str]) -> int:
    from holdfast.cli.parse import parse
    from holdfast.settings import CertifySettings

    settings = CertifySettings(**parse(CertifySettings, words))
    from holdfast.certify.run import run_certify

    return run_certify(settings).exit_code


def _convert(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import ConvertSettings

    settings = ConvertSettings(**parse(ConvertSettings, words))
    from holdfast.conversion import run_convert

    run_convert(settings)


def _export(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import ExportSettings

    settings = ExportSettings(**parse(ExportSettings, words))
    from holdfast.exporting import run_export

    run_export(settings)


def _download(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import DownloadSettings

    settings = DownloadSettings(**parse(DownloadSettings, words))
    from holdfast.console import Progress
    from holdfast.downloads import run_download

    with Progress(sys.stdout) as progress:
        run_download(settings, say=progress.screen.say, report=progress.show)


def _models(words: list[str]) -> None:
    _no_more(words)
    from holdfast.cli.models import listing

    print(listing())


def _env(words: list[str]) -> None:
    from holdfast.cli.parse import parse
    from holdfast.settings import EnvSettings

    settings = EnvSettings(**parse(EnvSettings, words))
    from holdfast.cli.environment import run_env

    run_env(settings)


def _version(words: list[str]) -> None:
    _no_more(words)
    print(f"holdfast {__version__}")


def _help(words: list[str]) -> None:
    if not words:
        lines = [_SUMMARY, "", "Usage: holdfast VERB [--key value | key=value] ...", ""]
        lines += [f"  {verb:<10} {text}" for verb, (text, _) in _VERBS.items()]
        print("\n".join([*lines, "", "'holdfast VERB --help' lists the keys of a verb."]))
        return
    verb = words[0]
    if verb not in _VERBS:
        raise SettingsError(f"There is no verb '{verb}'.", hint=did_you_mean(verb, _VERBS).strip())
    text = _VERBS[verb][0]
    if verb == "resume":
        usage = "Usage: holdfast resume [RUN] [--key value | key=value] ..."
        print("\n".join([f"{text}.", "", usage, "", *_RESUME]))
        return
    if verb in ("models", "help", "version"):
        print(f"{text}.\n\nUsage: holdfast {verb}")
        return
    from holdfast import settings
    from holdfast.cli.flags import help_text

    print(help_text(getattr(settings, f"{verb.capitalize()}Settings"), summary=text))


def _no_more(words: list[str]) -> None:
    if words:
        raise SettingsError(f"This verb takes no keys, but '{words[0]}' was given.")


_RESUME = (
    "RUN is a run folder or a checkpoint; without it the newest run goes on.",
    "Keys are those of 'holdfast train' that may change, such as --epochs, --device, --workers and --data.",
    "",
    "Examples",
    "  holdfast resume runs/train/exp",
    "  holdfast resume runs/train/exp/weights/last.pt --epochs 200",
    "",
    "'holdfast train ... --name NAME --resume auto' starts a run, or goes on with it when there is one.",
)

_VERBS: dict[str, tuple[str, Callable[[list[str]], int | None]]] = {
    "train": ("Train a model on a data set", _train),
    "resume": ("Go on with a training that was stopped, killed or is to have more epochs", _resume),
    "val": ("Measure precision, recall and AP of a model on a data set", _val),
    "predict": ("Detect objects in images and videos", _predict),
    "demo": ("Draw a small data set, train on it, validate and detect", _demo),
    "check": ("Look for what is wrong with a data set", _check),
    "plan": ("Predict memory and speed of a training, without data and without training", _plan),
    "watch": ("Follow a training from another shell, or tell of a finished one", _watch),
    "advise": ("Say what would make a training better, from what was recorded of it", _advise),
    "report": ("Draw the pictures of a training again and write its page, report.html", _report),
    "compare": ("Show runs side by side: settings, metrics, speed, curves", _compare),
    "benchmark": ("Time a model at several input sizes", _benchmark),
    "tune": ("Search for better training settings", _tune),
    "certify": ("Repeat and disturb a short training, and say whether it holds", _certify),
    "convert": ("Write a weight file in another form", _convert),
    "export": ("Write a model for other runtimes (TorchScript, ONNX), and check the file", _export),
    "download": ("Download weight files that their authors released", _download),
    "models": ("List the models with their size and cost", _models),
    "env": ("Show what this machine offers, with warnings", _env),
    "help": ("Show this page, or the keys of a verb", _help),
    "version": ("Show the version", _version),
}


if __name__ == "__main__":
    sys.exit(main())
