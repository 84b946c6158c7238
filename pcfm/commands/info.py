"""Commands about the toolkit itself and about finished runs: list, doctor, report."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from pcfm.commands.common import DONE, UNMET, Common, fresh_file


@dataclass(kw_only=True)
class List(Common):
    """What there is, one line each with its source; of one problem its settings, presets and laws.

    Attributes:
        what: Which table.
        name: One entry of it.
    """

    what: Annotated[
        Literal[
            "problems",
            "laws",
            "methods",
            "solvers",
            "spacings",
            "schedules",
            "couplings",
            "times",
            "networks",
            "sources",
            "guidance",
            "divergences",
            "formats",
            "suites",
            "models",
        ],
        tyro.conf.Positional,
    ]

    name: Annotated[str | None, tyro.conf.Positional] = None

    def run(self) -> int:
        from pcfm.naming import lookup

        rows = _tables()[self.what]()
        if self.name is not None:
            rows = [lookup(self.what.removesuffix("s"), self.name, {row["name"]: row for row in rows})]
        if self.name is not None and self.what == "problems":
            return self._problem(self.name)
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            self.say(f"{row['name']:<{width}}  {row['summary']}")
        self.emit({self.what: rows})
        return DONE

    def _problem(self, name: str) -> int:
        """All that can be set of a problem."""
        from pde_datasets import PROBLEMS

        kind = PROBLEMS[name]
        problem = kind()
        self.say(f"{name}: {kind.equation}  [{kind.source}]")
        self.say(f"  scheme    {kind.scheme}")
        self.say(f"  channels  {', '.join(problem.channels)}")
        self.say(f"  grid      {problem.grid}")
        meanings = {key: text for base in reversed(kind.__mro__) for key, text in attributes(base.__doc__ or "").items()}
        settings = [
            {"name": field.name, "default": getattr(problem, field.name), "meaning": meanings.get(field.name, "")}
            for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        ]
        self.say("  settings (--set NAME=VALUE) with their defaults")
        for row in settings:
            self.say(f"    {row['name']}={_value(row['default'])}  {row['meaning']}".rstrip())
        company = kind.together * problem.snapshots
        if company > 1:
            self.say(f"  shards    hold multiples of {company} samples, which are simulated together")
        if kind.presets:
            self.say("  presets (--preset NAME)")
        for preset, values in kind.presets.items():
            self.say(f"    {preset}: {' '.join(f'{key}={_value(value)}' for key, value in values.items()) or 'the defaults'}")
        self.say("  laws under the defaults (--law problem: these and all others that its scheme obeys)")
        for law in problem.laws:
            self.say(f"    {law}")
        document = {"name": name, "equation": kind.equation, "source": kind.source, "scheme": kind.scheme, "settings": settings}
        presets = {preset: dict(values) for preset, values in kind.presets.items()}
        self.emit({**document, "together": company, "channels": list(problem.channels), "presets": presets, "laws": list(problem.laws)})
        return DONE


def _value(value: Any) -> str:
    """A setting as --set takes it."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def attributes(documentation: str) -> dict[str, str]:
    """The attributes that a docstring describes, each in one line.

    Example:
        >>> attributes("A wave.\\n\\nAttributes:\\n    points, times: how many of\\n        each.\\n\\nSource:\\n    none")
        {'points': 'how many of each.', 'times': 'how many of each.'}
    """
    section = inspect.cleandoc(documentation).partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        head, colon, rest = line.strip().partition(": ")
        if line.startswith("    ") and not line.startswith("     ") and colon:
            names = head.split(", ")
            found |= dict.fromkeys(names, rest)
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _tables() -> dict[str, Any]:
    def doc(kind: Any) -> str:
        return str(kind.__doc__).strip().splitlines()[0].replace("$", "")

    def problems() -> list[dict[str, Any]]:
        from pde_datasets import PROBLEMS

        return [
            {
                "name": name,
                "summary": f"{kind.equation}  [{kind.source}]" + (f"  [presets: {', '.join(kind.presets)}]" if kind.presets else ""),
                "presets": list(kind.presets),
            }
            for name, kind in PROBLEMS.items()
        ]

    def laws() -> list[dict[str, str]]:
        from pcfm.laws import LAWS

        return [{"name": name, "summary": f"{law.summary}  [keys: {', '.join(law.keys)}]"} for name, law in LAWS.items()]

    def methods() -> list[dict[str, str]]:
        from pcfm.methods import METHODS, summary

        return [{"name": name, "summary": summary(name)} for name in METHODS]

    def described(table: Any) -> list[dict[str, Any]]:
        """Classes with their options."""
        given = ("grid", "channels", "condition", "times")
        rows = []
        for name, kind in table.items():
            options = [p for p in inspect.signature(kind).parameters.values() if p.name not in given and p.default is not p.empty]
            keys = [f"{p.name}={_value(p.default)}" for p in options]
            rows.append({"name": name, "summary": doc(kind) + (f"  [keys: {', '.join(keys)}]" if keys else "")})
        return rows

    def solvers() -> list[dict[str, Any]]:
        from pcfm.methods import SOLVERS

        return [{"name": name, "summary": doc(kind)} for name, kind in SOLVERS.items()]

    def spacings() -> list[dict[str, Any]]:
        from pcfm.samplers.times import TIMES

        return described(TIMES)

    def schedules() -> list[dict[str, Any]]:
        from pcfm.configuration import SCHEDULES

        return described(SCHEDULES)

    def couplings() -> list[dict[str, Any]]:
        from pcfm.configuration import COUPLINGS

        return described(COUPLINGS)

    def times() -> list[dict[str, Any]]:
        from pcfm.objective import TIME_LAWS

        return described(TIME_LAWS)

    def networks() -> list[dict[str, Any]]:
        from pcfm.configuration import NETWORKS

        return described(NETWORKS)

    def sources() -> list[dict[str, Any]]:
        from pcfm.configuration import SOURCES

        return described(SOURCES)

    def guidance() -> list[dict[str, Any]]:
        from pcfm.guidance import GUIDANCES

        return described(GUIDANCES)

    def divergences() -> list[dict[str, Any]]:
        from pcfm.likelihood import DIVERGENCES

        return described(DIVERGENCES)

    def formats() -> list[dict[str, str]]:
        from pde_datasets.loaders import FORMATS

        return [{"name": name, "summary": f"{entry.description}  [{entry.source}]"} for name, entry in FORMATS.items()]

    def models() -> list[dict[str, str]]:
        from pcfm.flow import read_description
        from pcfm.shelf import shipped

        found = []
        for name, folder in shipped().items():
            description = read_description(folder / "model.json")
            shape = " x ".join(str(axis["points"]) for axis in description["grid"])
            objective = description.get("objective", {"kind": "flow-matching"})["kind"]
            what = "velocity" if objective == "flow-matching" else f"flow map, {objective}"
            about = f"{', '.join(description['channels'])} on {shape}, {what}"
            found.append({"name": name, "objective": objective, "summary": f"{about}  [{description['card'].get('summary', '')}]"})
        return found

    def suites() -> list[dict[str, Any]]:
        from pcfm.suites import SUITES

        return [
            {"name": name, "summary": f"{suite.title}; given: {suite.datum}  [{suite.source}]", "presets": list(suite.sizes)}
            for name, suite in SUITES.items()
        ]

    return {
        "problems": problems,
        "laws": laws,
        "methods": methods,
        "solvers": solvers,
        "spacings": spacings,
        "schedules": schedules,
        "couplings": couplings,
        "times": times,
        "networks": networks,
        "sources": sources,
        "guidance": guidance,
        "divergences": divergences,
        "formats": formats,
        "suites": suites,
        "models": models,
    }


@dataclass(kw_only=True)
class Doctor(Common):
    """Versions, device, write access and known clashes, made to be pasted into an issue."""

    def run(self) -> int:
        import importlib.metadata as metadata
        import importlib.util

        import torch

        from pcfm.report.record import code_version, library_versions

        clashes = []
        if importlib.util.find_spec("torchvision") is not None:
            built = metadata.version("torchvision")
            if torch.version.cuda is None and "cpu" not in built:
                clashes.append(
                    f"torchvision {built} is not a CPU build but torch {torch.__version__} is: importing torchvision fails, "
                    "and so do packages that need it. Install both from the same index."
                )
        if torch.get_num_threads() > 1 and os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
            clashes.append("OMP_WAIT_POLICY is not PASSIVE: idle threads spin, which is slow where cores are shared.")
        writable = os.access(Path.cwd(), os.W_OK)
        if not writable:
            clashes.append("the current folder is not writable.")
        document = {
            "code": code_version(),
            "libraries": library_versions(),
            "platform": sys.platform,
            "device": str(self.torch_device()),
            "cuda_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "threads": torch.get_num_threads(),
            "processors": os.cpu_count(),
            "writable": writable,
            "clashes": clashes,
        }
        for key, value in document.items():
            if key != "clashes":
                text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
                self.say(f"{key:<14}{text if text != [] else 'none'}")
        for clash in clashes:
            self.say(f"clash: {clash}")
        if not clashes:
            self.say("no known clashes")
        self.emit(document)
        return UNMET if clashes else DONE


@dataclass(kw_only=True)
class Report(Common):
    """An HTML page with figures from stored runs, without recomputing them.

    Attributes:
        folders: Run folders, or folders of samples.
        out: Page to write; report.html in the first folder by default.
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path | None = None

    def run(self) -> int:
        from pcfm.pages import stored_page

        if not self.folders:
            raise ValueError("report expects at least one run folder; got none. Name the folder of a finished run.")
        for folder in self.folders:
            if not folder.is_dir():
                what = "a file" if folder.exists() else "missing"
                raise ValueError(f"report expects run folders; {folder} is {what}. Name the folder of a finished run.")
        out = fresh_file(self.out or self.folders[0] / "report.html", self.overwrite)
        stored_page(list(self.folders), out)
        self.say(f"report in {out}")
        self.emit({"report": str(out)})
        return DONE
