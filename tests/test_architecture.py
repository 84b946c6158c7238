"""The house: who may import whom, and what may be imported where."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("constraints", "pde_datasets", "pcfm")
TOP_FLOOR = {
    "pcfm/experiment.py",
    "pcfm/findings.py",
    "pcfm/lawbook.py",
    "pcfm/laws.py",
    "pcfm/audit.py",
    "pcfm/error_report.py",
    "pcfm/evaluation.py",
    "pcfm/pages.py",
    "pcfm/suite_laws.py",
    "pcfm/suites.py",
    "pcfm/scores.py",
    "pcfm/bench.py",
    "pcfm/bench_page.py",
    "pcfm/cli.py",
}
"""Modules that turn names into objects and see all three packages, beside pcfm/commands."""

STOREYS = {
    "constraints": [
        "grid", "calculus.scheme", "calculus.finite_difference", "calculus.spectral", "calculus.staggered", "calculus.finite_volume",
        "calculus.vector", "calculus.quadrature", "calculus", "linear.solve", "linear.derivative", "linear.entries", "linear.map",
        "linear.explicit", "linear.structured", "linear.sparse", "linear.tensor", "linear.stepping", "linear.stacked", "linear",
        "units", "metric", "steps", "functional", "constraint", "view",
        "initial", "boundary", "observation", "conservation", "divergence", "balance", "equation", "march", "rate", "relation", "poisson",
        "inequality", "convex", "holonomy",
        "face", "kkt", "interior", "dual", "active", "restoration", "implicit", "viewed", "system", "marched", "projection", "newton",
        "compatibility",
    ],
    "pde_datasets": [
        "lazy", "mesh", "finite_elements", "fields", "steps", "problem", "random_fields", "solvers", "problems", "production",
        "mesh_store", "store",
        "loaders.files", "loaders.limits", "loaders.hdf5", "loaders.pt", "loaders.mat5", "loaders.mat", "loaders.npy", "loaders.glance",
        "loaders.views", "loaders.parts", "loaders.coordinates", "loaders.points", "loaders.sides", "loaders.seam", "loaders.text",
        "loaders.si", "loaders.words", "loaders", "writers",
    ],
    "pcfm": [
        "naming", "schedule", "path", "parametrisation", "source", "networks.embedding", "networks.perceptron", "networks.transformer",
        "networks.fourier_operator", "networks.residual", "networks", "guard", "velocity", "diffusion", "derivative", "flow_map",
        "straightness", "optimal_flow", "errors", "guidance.guidance", "guidance.energy", "guidance.local", "guidance.learned",
        "guidance.monte_carlo", "guidance.posterior", "guidance.classifier_free", "guidance", "flow", "uncertainty", "coupling",
        "objective", "training",
        "samplers.sampler", "samplers.times", "samplers.ode", "samplers.jump", "samplers.stochastic", "geodesic", "likelihood", "inference",
        "samplers.transport", "samplers.minimise", "samplers.guided", "samplers.diffusion_pde",
        "samplers.optimised", "samplers.flower", "samplers.flow_dps", "samplers.pnp_flow", "samplers.source_chain",
        "samplers.projected", "samplers.consistent", "samplers.eci", "samplers.langevin", "samplers.renoise", "samplers.tangent",
        "samplers.dual", "samplers.inequality", "samplers", "methods", "generation", "discretisation", "metrics", "report", "expressions",
        "equations", "recognition", "findings", "lawbook",
        "laws", "audit", "evaluation", "configuration", "shelf", "teaching", "experiment", "error_report", "pages",
        "published", "suite_laws", "suites", "scores", "bench_samples", "bench", "bench_page",
        "commands", "cli",
    ],
}  # fmt: skip
"""Modules from the ground up: each imports only from those before it in its package."""

MODULES = {"ot": "POT"}
"""Modules whose distribution has another name."""

WHOLE = ("metrics", "report", "commands", "solvers", "problems", "loaders", "writers")
"""Folders that stand for all modules in them that are not named."""

HOMES = {
    "h5py": ("pde_datasets/store.py", "pde_datasets/loaders/"),
    "torchdiffeq": ("pcfm/samplers/ode.py",),
    "matplotlib": ("pcfm/report/figure.py", "pcfm/report/look.py", "pcfm/report/pareto.py"),
    "tyro": ("pcfm/cli.py", "pcfm/commands/"),
    "tqdm": ("pcfm/commands/common.py",),
    "safetensors": ("pcfm/flow.py",),
    "ot": ("pcfm/coupling.py",),
}
"""Libraries that are imported in one place only."""

FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Modules a file imports, wherever in it, except for type checking only."""
    tree = ast.parse(file.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if (ROOT / node.module.replace(".", "/") / f"{alias.name}.py").exists()
            }
    return found


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_packages_know_only_those_below(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    above = {"constraints": {"pde_datasets", "pcfm"}, "pde_datasets": {"pcfm"}, "pcfm": {"pde_datasets"}}[package]
    if package == "pcfm" and (name(file) in TOP_FLOOR or "commands" in file.parts):
        above = set()
    seen = {module.split(".")[0] for module in imports(file)}
    assert not seen & above, f"{name(file)} imports {seen & above}"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_libraries_stay_at_home(file: Path) -> None:
    for library in {module.split(".")[0] for module in imports(file)} & set(HOMES):
        assert name(file).startswith(HOMES[library]), f"{name(file)} imports {library}; its home is {HOMES[library]}"


@pytest.mark.parametrize("package", STOREYS)
def test_modules_import_downwards(package: str) -> None:
    storeys = STOREYS[package]

    def storey(module: str) -> int | None:
        local = module.removeprefix(f"{package}.")
        matches = [i for i, s in enumerate(storeys) if local == s or (local.startswith(s + ".") and s in WHOLE)]
        return matches[0] if matches else None

    for file in (ROOT / package).rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        own = storey(module)
        if module in (package, f"{package}.__main__", f"{package}.models"):
            continue
        assert own is not None, f"{module} has no place in the house: add it to STOREYS and docs/architecture.md"
        for used in imports(file):
            if used.startswith(package + ".") and (theirs := storey(used)) is not None:
                assert theirs <= own, f"{module} imports {used}, which lies above it"


def at_once(file: Path) -> set[str]:
    """Modules that a file imports when it is imported itself."""
    body = ast.parse(file.read_text()).body
    plain = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in body if isinstance(node, ast.ImportFrom) and node.module}


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {text.split(">=")[0].split("[")[0] for text in project["dependencies"]}
    assert all(">=" in text for text in project["dependencies"]), "lower bounds, never pins"
    used = {module.split(".")[0] for file in FILES for module in imports(file)}
    foreign = used - set(sys.stdlib_module_names) - set(PACKAGES)
    extras = {text.split(">=")[0] for name, group in project["optional-dependencies"].items() if name != "dev" for text in group}
    extras |= {module for module, distribution in MODULES.items() if distribution in extras}
    assert foreign <= declared | extras, f"undeclared: {foreign - declared - extras}"
    assert not extras & {module.split(".")[0] for file in FILES for module in at_once(file)}, "extras are imported where they are used"
    assert not any(name.startswith("torchvision") for name in declared)


def test_packages_are_listed() -> None:
    """Every folder with code is in the wheel, and nothing of a generic name is."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in FILES}
    assert listed == folders


def test_no_machine_paths_or_leftovers() -> None:
    for file in FILES + sorted((ROOT / "tests").rglob("*.py")):
        if file == Path(__file__):
            continue
        text = file.read_text()
        for mark in ("TODO", "FIXME", "NotImplementedError"):
            assert mark not in text, f"{name(file)}: {mark}"
