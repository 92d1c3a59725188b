"""Sessions of nox: tests, demos and checks, each in its own environment.

    nox -s test                    every project's tests;  test-common, test-<paper> one of them
    nox -s demo                    every project's demo;   demo-<paper> one of them, into runs/
    nox -s lint                    check style, types, imports between the packages, and the tables
    nox -s mutants                 change the code line by line and check that the tests notice
    nox -s faults                  kill every trainer at random moments, damage its checkpoints (an hour)
    nox -s tables                  write the READMEs' tables from the measured rows
    nox -s minimums                run the tests with the lowest supported versions
    nox -s recipes                 test blocks in networks of other libraries (installs Ultralytics, AGPL-3.0)
    nox -s build                   build sdists and wheels in dist/, install each one alone and run it

uv makes the environments if it is installed, else virtualenv.
"""

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "ci"))
from projects import PROJECTS

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "test"]

PAPERS = tuple(PROJECTS)
# Packages that belong to no paper: the shared package, and other methods on the papers' splits.
OTHERS = ("common", "rivals")
# Minutes on one core, without those for the environment.
DEMO_MINUTES = {paper: settings["demo-minutes"] for paper, settings in PROJECTS.items()}
CONSTRAINTS = ("--constraint", "ci/constraints.txt")
# Which package may import which, for import-linter.
ARROWS = """
[importlinter]
root_packages =
    common
    {projects}

[importlinter:contract:projects]
name = No project imports another
type = independence
modules =
    {projects}

[importlinter:contract:common]
name = The shared package knows no project
type = forbidden
source_modules =
    common
forbidden_modules =
    {projects}
"""
LINTERS = ("ruff==0.17.6", "mypy==2.4.1", "import-linter==2.16")
# One thread per process: the tests run small networks, several processes at a time.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def install(session: nox.Session, *projects: str, options: tuple[str, ...] = CONSTRAINTS) -> None:
    """Install projects with their test tools, editable, all in one resolution."""
    wanted = [f"--editable=./{project}[test]" for project in ("common", *projects)]
    session.install(*options, *wanted)


def pytest(session: nox.Session, project: str) -> None:
    # Parallel by file, so that the networks that a file's tests share are trained once.
    options = ("--config-file", "ci/pytest.ini", "--numprocesses", "2", "--dist", "loadfile")
    # A task in a folder of its own has its tests there.
    folders = [str(path) for pattern in ("tests", "*/tests") for path in sorted(Path(project).glob(pattern))]
    session.run("pytest", *options, *folders, *session.posargs, env=ENVIRONMENT)


@nox.session(name="test", venv_backend="none")
def test(session: nox.Session) -> None:
    """Run every project's tests."""
    for project in (*OTHERS, *PAPERS):
        session.notify(f"test-{project}", session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run every project's demo (training, evaluation and figures), then make one table and one figure of all."""
    install(session, *PAPERS)
    ends = expected_ends()
    total = max(ends.values())
    session.log(f"{len(PAPERS)} demos, two at a time; about {total:.0f} min in all")
    start = time.monotonic()
    failed = []
    with ThreadPoolExecutor(2) as pool:
        demos = {pool.submit(run_demo, session, paper): paper for paper in ends}
        try:
            for finished in as_completed(demos):
                paper = demos[finished]
                if finished.exception():  # the other demos still run, and the summary names this one
                    failed.append(paper)
                    session.warn(f"{paper}: failed; runs/{paper}_demo.log has the reason")
                    continue
                # Estimate the time left from the time so far.
                left = (total - ends[paper]) * (time.monotonic() - start) / (60 * ends[paper])
                session.log(f"{paper}: done" + (f"; about {max(1, round(left))} min left" if left else ""))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    session.run("python", "ci/demo_summary.py", *(["--failed", *failed] if failed else []))


def expected_ends() -> dict[str, float]:
    """Return paper → minute in which its demo ends if two run at a time, in the order of their starts."""
    ends: dict[str, float] = {}
    free = [0.0, 0.0]
    for paper in sorted(PAPERS, key=lambda name: -DEMO_MINUTES[name]):
        ends[paper] = min(free) + DEMO_MINUTES[paper]
        free = [ends[paper], max(free)]
    return ends


def run_demo(session: nox.Session, paper: str) -> None:
    """Run one demo on half of the cores, which suits small networks; what it prints is written to a file."""
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}
    command = ("bash", f"{paper}/demo.sh", f"runs/{paper}_demo")
    path = Path(f"runs/{paper}_demo.log")
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as output:
        session.run(*command, external=True, env=threads, stdout=output, log=False)


for project in (*OTHERS, *PAPERS):

    @nox.session(name=f"test-{project}")
    def test_project(session: nox.Session, project: str = project) -> None:
        """Run one project's tests."""
        install(session, *({project} - {"common"}))
        pytest(session, project)


for paper in PAPERS:

    @nox.session(name=f"demo-{paper}")
    def demo_paper(session: nox.Session, paper: str = paper) -> None:
        """Run one project's demo: train, score and draw figures."""
        install(session, paper)
        session.log(f"{paper}: about {max(1, round(DEMO_MINUTES[paper]))} min")
        session.run("bash", f"{paper}/demo.sh", f"runs/{paper}_demo", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, imports between packages, and that the READMEs' tables equal the measured rows."""
    install(session, *PAPERS, "rivals")
    session.install(*LINTERS)
    session.run("ruff", "check", "--config", "ci/ruff.toml", ".")
    session.run("ruff", "format", "--check", "--config", "ci/ruff.toml", ".")
    for project in (*OTHERS, *PAPERS):
        session.run("mypy", "--config-file", "ci/mypy.ini", f"{project}/src/{project}")
    session.run("mypy", "--config-file", "ci/mypy.ini", "ci")
    arrows = Path(session.create_tmp()) / "arrows.ini"
    arrows.write_text(ARROWS.format(projects="\n    ".join((*PAPERS, "rivals"))), encoding="utf-8")
    session.run("lint-imports", "--config", str(arrows.resolve()), "--no-cache")
    session.run("python", "ci/tables.py", "--check")
    pytest(session, "ci")


@nox.session
def tables(session: nox.Session) -> None:
    """Write the tables of the READMEs from the measured rows."""
    install(session)
    session.run("python", "ci/tables.py")


@nox.session
def faults(session: nox.Session) -> None:
    """Kill every trainer at random moments and compare its results; -- --papers X --kills N for fewer."""
    install(session, *PAPERS)
    session.run("python", "ci/faults.py", *session.posargs, env=ENVIRONMENT)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change the code line by line and check that the tests notice; -- --only WORD for some of the changes."""
    install(session, *PAPERS)
    session.run("python", "ci/mutants.py", *session.posargs, env=ENVIRONMENT)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions that the projects declare (needs uv)."""
    if session.venv_backend != "uv":
        session.error("this session needs uv: pip install uv, remove .nox/minimums, and run it again")
    install(session, *PAPERS, "rivals", options=("--resolution", "lowest-direct"))
    for project in (*OTHERS, *PAPERS):
        pytest(session, project)


@nox.session
def recipes(session: nox.Session) -> None:
    """Test blocks in networks of timm, torchvision and others; only this session installs Ultralytics (AGPL-3.0)."""
    install(session, *PAPERS)
    session.install(*CONSTRAINTS, "ultralytics==8.4.190")
    session.run("pytest", "--config-file", "ci/pytest.ini", "recipes", *session.posargs, env=ENVIRONMENT)


@nox.session
def build(session: nox.Session) -> None:
    """Build sdists and wheels in dist/, then install each project alone into an empty environment and run it."""
    session.install("build", "hatchling")
    shutil.rmtree("dist", ignore_errors=True)
    for project in ("common", *PAPERS):
        session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", project)
    for paper in PAPERS:
        session.notify(f"try-{paper}")


for paper in PAPERS:

    @nox.session(name=f"try-{paper}", reuse_venv=False)
    def try_paper(session: nox.Session, paper: str = paper) -> None:
        """Install one project as a user does, from dist/ or -- git; import it and train two steps of its demo."""
        if "git" in session.posargs:
            here = Path.cwd().as_uri()
            wanted = [f"fullpaper-{name} @ git+{here}#subdirectory={name}" for name in ("common", paper)]
        else:
            wanted = ["--find-links", "dist", f"fullpaper-{paper}"]
        session.install(*CONSTRAINTS, *wanted)
        # Outside of the checkout, so that nothing of it can be imported by accident.
        with session.chdir(session.create_tmp()):
            session.run("python", "-c", f"import {paper}; print({paper}.list_models())")
            session.run(f"fullpaper-{paper}", "train", "--max-steps", "2", "--output", "run", env=ENVIRONMENT)
