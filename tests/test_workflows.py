"""The workflows: whole, bounded, with no right that they do not need; what they call is there."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in FILES}
JOBS = {(file, name): job for file, flow in WORKFLOWS.items() for name, job in flow["jobs"].items()}
STEPS = [(*place, step) for place, job in JOBS.items() for step in job.get("steps", [])]
MORE_RIGHTS = {  # than to read; all else reads
    ("publish.yml", "deploy"): {"pages": "write", "id-token": "write"},
    ("release.yml", "release"): {"contents": "write"},
    ("reproduce.yml", "report"): {"issues": "write"},
    ("weekly.yml", "report"): {"issues": "write"},
}


def test_a_workflow_may_read_and_only_these_jobs_may_do_more():
    assert [file for file, flow in WORKFLOWS.items() if flow["permissions"] != {"contents": "read"}] == []
    assert {place: job["permissions"] for place, job in JOBS.items() if "permissions" in job} == MORE_RIGHTS


@pytest.mark.parametrize(("file", "name"), JOBS, ids=map("-".join, JOBS))
def test_a_job_has_an_end_or_is_another_workflow(file, name):
    job = JOBS[file, name]
    if "uses" in job:
        called = WORKFLOWS[Path(job["uses"]).name]
        assert "workflow_call" in called[True]  # YAML reads the key `on` as true
    else:
        assert job["timeout-minutes"] <= 180
    needs = job.get("needs", [])
    assert set([needs] if isinstance(needs, str) else needs) <= WORKFLOWS[file]["jobs"].keys()


def test_a_step_does_one_thing_and_actions_have_a_version():
    for *place, step in STEPS:
        assert ("uses" in step) != ("run" in step), place
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]), place


def test_no_command_is_put_together_from_what_somebody_else_wrote():
    """A name of a branch or a tag could be a command: it comes as a variable of the environment."""
    assert [place for *place, step in STEPS if "${{" in step.get("run", "")] == []


def test_what_the_commands_name_is_there():
    said = "\n".join(step.get("run", "") for *_, step in STEPS)
    for path in re.findall(r"(?<!\S)((?:tools|\.ci)/\S+)", said):
        assert (ROOT / path).exists(), path
    targets = {target for line in re.findall(r"^make (.+)$", said, re.MULTILINE) for target in line.split()}
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert targets and targets <= set(phony)


def test_every_failure_of_the_week_is_reported():
    jobs = WORKFLOWS["weekly.yml"]["jobs"]
    assert set(jobs["report"]["needs"]) == jobs.keys() - {"report"}
    for file in ("weekly.yml", "reproduce.yml"):
        asked = WORKFLOWS[file]["jobs"]["report"]["if"]
        assert asked.startswith("always()") and "'failure'" in asked and "'cancelled'" in asked


def test_the_pages_are_published_once_their_links_are_checked():
    steps = WORKFLOWS["publish.yml"]["jobs"]["build"]["steps"]
    done = [step.get("run") or step["uses"].partition("@")[0] for step in steps]
    assert done[-3:] == ["make html", ".venv/bin/python tools/links.py", "actions/upload-pages-artifact"]


def test_a_release_is_made_of_what_was_checked_and_tested():
    jobs = WORKFLOWS["release.yml"]["jobs"]
    assert (jobs["test"]["needs"], jobs["release"]["needs"]) == ("check", "test")
    assert "release.py --notes" in jobs["check"]["steps"][-1]["run"]
