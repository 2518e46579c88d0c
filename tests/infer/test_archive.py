"""What `torch.export.load` would run of a file that is not trusted, and that it does not get to see."""

import io
import json
import pickle
import zipfile

import pytest
import torch
from alive import enliven, structured_images

import resurge
from resurge.errors import UserError
from resurge.export.convert import Deployed, trace, write_program
from resurge.infer.engines.archive import vetted

MODEL = "resnest50 depths=(1,1) planes=(16,32)"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return enliven(resurge.create_model(MODEL, 5), structured_images(4, size=48))


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    write_program(trace(Deployed(model), 3), folder)
    (path,) = folder.iterdir()
    return path


def test_an_export_passes_and_is_the_same(model, good):
    program = torch.export.load(vetted(good))
    for size in ((2, 64, 64), (1, 77, 96)):
        images = structured_images(size[0], size=size[1:])
        with torch.no_grad():
            torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-4)


class Harmful:
    def __reduce__(self):
        return (print, ("this ran",))


def forged(good, tmp_path, change=None, add=None, graph=None):
    """The file with entries changed."""
    path = tmp_path / "forged.pt2"
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            entry, data = name.partition("/")[2], old.read(name)
            if graph is not None and entry == "models/model.json":
                data = json.dumps(graph(json.loads(data))).encode()
            new.writestr(name, (change or {}).get(entry, lambda data: data)(data))
        for entry, data in (add or {}).items():
            new.writestr(f"{root}/{entry}", data)
    return path


def with_target(name):
    def change(graph):
        graph["graph_module"]["graph"]["nodes"][-1]["target"] = name
        return graph

    return change


def with_range(text):
    def change(graph):
        graph["range_constraints"][text] = {"min_val": 0, "max_val": 9}
        return graph

    return change


def pickled_weight(data):
    table = json.loads(data)
    next(iter(table["config"].values()))["use_pickle"] = True
    return json.dumps(table).encode()


def harmful_examples(data):
    buffer = io.BytesIO()
    torch.save(Harmful(), buffer)
    return buffer.getvalue()


FORGED = {
    "a pickled weight": {"change": {"data/weights/model_weights_config.json": pickled_weight}},
    "pickled examples": {"change": {"data/sample_inputs/model.pt": harmful_examples}},
    "a custom object": {"add": {"data/constants/custom_obj_0": pickle.dumps(Harmful())}},
    "old weights": {"add": {"data/weights/model.pt": pickle.dumps(Harmful())}},
    "a function of torch": {"graph": with_target("torch.hub.load")},
    "a function of Python": {"graph": with_target("_operator.__call__")},
    "an operator of another library": {"graph": with_target("torch.ops.mine.run.default")},
    "an expression that calls": {"graph": with_range("__import__('os').getpid()")},
    "an expression that reads an attribute": {"graph": with_range("s0.__class__")},
    "an unknown function": {"graph": with_range("exit(1)")},
}


@pytest.mark.parametrize("name", FORGED)
def test_what_could_run_code_is_refused(good, tmp_path, capsys, name):
    with pytest.raises(UserError, match="which no export of resurge does"):
        vetted(forged(good, tmp_path, **FORGED[name]))
    assert "this ran" not in capsys.readouterr().out


def test_guards_are_left_out(good, tmp_path):
    def change(graph):
        graph["guards_code"] = ["print('this ran')"]
        return graph

    with zipfile.ZipFile(vetted(forged(good, tmp_path, graph=change))) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("models/model.json"))
        assert json.loads(archive.read(name))["guards_code"] == []


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_a_damaged_file(tmp_path, content):
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(UserError, match="damaged or was cut short"):
        vetted(tmp_path / "model.pt2")
