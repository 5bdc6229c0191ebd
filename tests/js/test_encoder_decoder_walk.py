"""The walk through the Transformer against hooks on PyTorch's, in Node (encoder_decoder_walk.parity.mjs)."""

import json
import subprocess

from tests.strict import require

from .encoder_decoder_walk_cases import walk_cases
from .test_js import HERE, NODE


def test_every_station_is_what_pytorch_computes(tmp_path):
    require(NODE.exists(), "the JavaScript was not tested: there is no node beside this Python")
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(walk_cases(), allow_nan=False), "utf8")
    script = HERE / "encoder_decoder_walk.parity.mjs"
    command = (NODE, "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "--test", script)
    done = subprocess.run(command, env={"TRANSFORMER_LAB_CASES": str(path)}, capture_output=True, text=True)
    assert done.returncode == 0, f"\n{done.stdout}\n{done.stderr}"
