"""What `torch.export.load` would run of a file that is not trusted, and that it does not get to see."""

import copy
import json
import pickle
import shutil
import zipfile

import pytest
import torch
from alive import enliven, structured_images
from tiny_exports import CLASSES, write_classifier, write_files

import resurge
from resurge.cli import main
from resurge.errors import UserError
from resurge.export.convert import Deployed, trace, write_program
from resurge.infer.engines.archive import MOST_ENTRIES, vetted
from resurge.infer.folder import described
from resurge.optimize.rewrite import rewrite

MODEL = "resnest50 depths=(1,1) planes=(8,16)"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return enliven(resurge.create_model(MODEL, len(CLASSES)), structured_images(4, size=48))


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    write_program(trace(Deployed(rewrite(model)), 3), folder)
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
    """The file with entries changed and added."""
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


def nodes(graph):
    return graph["graph_module"]["graph"]["nodes"]


def first(graph, operator):
    """The arguments of the first call of an operator, by name."""
    node = next(node for node in nodes(graph) if node["target"] == f"torch.ops.aten.{operator}")
    return {each["name"]: each for each in node["inputs"]}


def with_target(name):
    def change(graph):
        nodes(graph)[-1]["target"] = name
        return graph

    return change


def with_range(text):
    def change(graph):
        graph["range_constraints"][text] = {"min_val": 0, "max_val": 9}
        return graph

    return change


def with_size(text):
    def change(graph):
        batch = graph["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"][0]
        batch["as_expr"]["expr_str"] = text
        return graph

    return change


def with_argument(operator, name, value):
    def change(graph):
        first(graph, operator)[name]["arg"] = value
        return graph

    return change


def renamed(old, new):
    """A value of the graph has another name, wherever it stands."""

    def change(plain):
        if isinstance(plain, dict):
            return {new if key == old else key: change(value) for key, value in plain.items()}
        if isinstance(plain, list):
            return [change(value) for value in plain]
        return new if plain == old else plain

    return change


def with_call(**fields):
    """How the program is called."""

    def change(graph):
        graph["graph_module"]["module_call_graph"][0]["signature"] |= fields
        return graph

    return change


def with_input(kind, **fields):
    def change(graph):
        graph["graph_module"]["signature"]["input_specs"][0] = {kind: fields}
        return graph

    return change


def in_graph(**fields):
    def change(graph):
        graph["graph_module"]["graph"] |= fields
        return graph

    return change


def maps_a_file(victim):
    """The program maps a file into memory, makes it if it is not there, and writes into it."""

    def change(graph):
        size = {"as_int": 16}
        meta = {
            "dtype": 7, "sizes": [size], "requires_grad": False, "device": {"type": "cpu", "index": None},
            "strides": [{"as_int": 1}], "storage_offset": {"as_int": 0}, "layout": 7,
        }  # fmt: skip
        given = {"filename": {"as_string": str(victim)}, "shared": {"as_bool": True}, "size": size}
        filled = {"self": {"as_tensor": {"name": "mapped"}}, "value": {"as_float": 1.0}}
        for row, (target, result, inputs) in enumerate(
            [("from_file.default", "mapped", given), ("fill_.Scalar", "filled", filled)]
        ):
            inputs = [{"name": name, "arg": arg, "kind": 1} for name, arg in inputs.items()]
            node = {"target": f"torch.ops.aten.{target}", "inputs": inputs, "name": result, "metadata": {}}
            nodes(graph).insert(row, node | {"outputs": [{"as_tensor": {"name": result}}]})
            graph["graph_module"]["graph"]["tensor_values"][result] = meta
        return graph

    return change


def in_table(**fields):
    """The description of the first tensor changed."""

    def change(data):
        table = json.loads(data)
        next(iter(table["config"].values())).update(fields)
        return json.dumps(table).encode()

    return {"data/weights/model_weights_config.json": change}


def renamed_tensor(name):
    def change(data):
        table = json.loads(data)
        table["config"][name] = table["config"].pop(next(iter(table["config"])))
        return json.dumps(table).encode()

    return {"data/weights/model_weights_config.json": change}


def structure(context):
    """Outputs in a structure of torch's, whose context says which module has its type."""
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": "builtins.tuple", "context": json.dumps(context), "children_spec": [leaf]}])


HUGE = {
    "dtype": 7, "sizes": [{"as_int": 1 << 40}], "requires_grad": False, "device": {"type": "cpu", "index": None},
    "strides": [{"as_int": 0}], "storage_offset": {"as_int": 0}, "layout": 7,
}  # fmt: skip
RUNS = "print('this ran')"
TEXT = {"as_string": "valid"}
FORGED = {
    "a pickled weight": {"change": in_table(use_pickle=True)},
    "a tensor of a foreign file": {"change": in_table(path_name="../../weight_0")},
    "a tensor that is not in its file": {"change": in_table(tensor_meta=HUGE)},
    "a tensor that replaces a method's class": {"change": renamed_tensor("model.__class__.forward")},
    "a tensor that replaces a method": {"change": renamed_tensor("forward")},
    "a custom object": {"add": {"data/constants/custom_obj_0": pickle.dumps(Harmful())}},
    "an opaque object": {"add": {"data/constants/opaque_obj_0": pickle.dumps(Harmful())}},
    "old weights": {"add": {"data/weights/model.pt": pickle.dumps(Harmful())}},
    "a second program": {"add": {"models/other.json": b"{}"}},
    "a compiled library": {"add": {"data/aotinductor/model/model.so": b"ELF"}},
    "a file beside the program": {"add": {"extra/notes": b"text"}},
    "a function of torch": {"graph": with_target("torch.hub.load")},
    "a function of Python": {"graph": with_target("_operator.__call__")},
    "a function of Python's operators": {"graph": with_target("_operator.methodcaller")},
    "a graph inside the graph": {"graph": with_target("torch.ops.higher_order.cond")},
    "an operator of another library": {"graph": with_target("torch.ops.mine.run.default")},
    "an operator with no part in exports": {"graph": with_target("torch.ops.aten.set_.source_Tensor")},
    "an extension": {"graph": with_target("#mine:run")},
    "text for a number": {"graph": with_argument("conv2d.default", "padding", {"as_ints": TEXT})},
    "text in a list of numbers": {"graph": with_argument("conv2d.default", "padding", {"as_ints": ["valid"]})},
    "text": {"graph": with_argument("conv2d.default", "padding", TEXT)},
    "texts": {"graph": with_argument("conv2d.default", "padding", {"as_strings": ["valid"]})},
    "another graph": {"graph": with_argument("conv2d.default", "bias", {"as_graph": {"name": "g", "graph": {}}})},
    "an object": {"graph": with_argument("conv2d.default", "bias", {"as_custom_obj": {"name": "o", "class_fqn": "o"}})},
    "an operator as argument": {"graph": with_argument("conv2d.default", "bias", {"as_operator": "torch.hub.load"})},
    "another device": {"graph": with_argument("conv2d.default", "bias", {"as_device": {"type": "cuda", "index": 9}})},
    "a truth for a number": {"graph": with_argument("conv2d.default", "padding", {"as_ints": [True, True]})},
    "a value whose name is code": {"graph": renamed("linear", f"x = {RUNS} #")},
    "an input whose name is code": {"graph": renamed("images", f"images={RUNS}")},
    "an argument whose name is code": {"graph": with_call(forward_arg_names=[f"images={RUNS}"])},
    "a structure that imports": {
        "graph": with_call(out_spec=structure({"__enum__": True, "fqn": "this:Enum", "name": "A"}))
    },
    "a structure of another type": {"graph": with_call(in_spec='[1, {"type": "mine.Type", "context": "null"}]')},
    "an object as input": {"graph": with_input("custom_obj", arg={"name": "o", "class_fqn": "o"}, custom_obj_name="o")},
    "an input that is text": {"graph": with_input("constant_input", name="x", value={"as_string": "x"})},
    "custom objects in the graph": {"graph": in_graph(custom_obj_values={"o": {"name": "o", "class_fqn": "o"}})},
    "an expression that calls": {"graph": with_size("__import__('os').getpid()")},
    "an expression that reads an attribute": {"graph": with_size("Integer(1).__class__")},
    "an expression that writes text": {"graph": with_size("Symbol('print(1)', integer=True)")},
    "an expression that is a string": {"graph": with_size("Add('print(1)', Integer(1))")},
    "an unknown function": {"graph": with_size("exit(Integer(1))")},
    "a power": {"graph": with_size("Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))")},
    "a power of Python": {"graph": with_size("9**9**9**9")},
    "a bound of a call": {"graph": with_range("__import__('os').getpid()")},
    "a bound of an attribute": {"graph": with_range("s0.__class__")},
}


def as_export(made, path, folder):
    """A folder with this file as its network, and a description that fits."""
    shutil.copytree(made, folder)
    shutil.copy(path, folder / "model.pt2")
    meta = json.loads((folder / "model.json").read_text())
    meta["export"]["files"] = {"model.pt2": described(folder / "model.pt2")}
    (folder / "model.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def made(good, tmp_path_factory):
    """An export's folder; what stands in it but the network is that of a run."""
    root = tmp_path_factory.mktemp("made")
    write_classifier(root / "run")
    meta = json.loads((root / "run" / "model.json").read_text())
    meta["export"] = {"format": "torch", "precision": "fp32", "outputs": ["logits"], "files": {}}
    (root / "export").mkdir()
    (root / "export" / "model.json").write_text(json.dumps(meta))
    return root / "export"


@pytest.mark.parametrize("name", FORGED)
def test_what_could_run_code_is_refused(made, good, tmp_path, capsys, name):
    folder = as_export(made, forged(good, tmp_path, **FORGED[name]), tmp_path / "export")
    (image,) = write_files(tmp_path / "images", 1).iterdir()
    assert main(["predict", str(folder), str(image)]) == 2
    captured = capsys.readouterr()
    assert "which no export of resurge does and which could run code" in captured.err
    assert "this ran" not in captured.out


def test_a_forged_folder_works_but_for_what_is_forged(made, good, tmp_path, capsys):
    folder = as_export(made, good, tmp_path / "export")
    (image,) = write_files(tmp_path / "images", 1).iterdir()
    assert main(["predict", str(folder), str(image)]) == 0
    assert "%" in capsys.readouterr().out


@pytest.mark.parametrize("there", [True, False])
def test_no_file_is_written(made, good, tmp_path, there):
    victim = tmp_path / "victim"
    if there:
        victim.write_bytes(b"precious" * 8)
    folder = as_export(made, forged(good, tmp_path, graph=maps_a_file(victim)), tmp_path / "export")
    (image,) = write_files(tmp_path / "images", 1).iterdir()
    assert main(["predict", str(folder), str(image)]) == 2
    assert victim.exists() == there
    assert not there or victim.read_bytes() == b"precious" * 8


def test_what_changes_no_result_is_left_out(good, tmp_path):
    def change(graph):
        graph["guards_code"] = [RUNS]
        graph["verifiers"] = ["MINE"]
        graph["graph_module"]["metadata"] = {"custom": "{}"}
        graph["graph_module"]["treespec_namedtuple_fields"] = {"os.stat_result": {"field_names": ["a"]}}
        for node in nodes(graph):
            node["metadata"] = {"source_fn_stack": f"x,{RUNS}", "stack_trace": "a secret"}
        graph["graph_module"]["module_call_graph"].append({"fqn": "model", "signature": {"in_spec": "[9, {}]"}})
        return graph

    examples = {"data/sample_inputs/model.pt": lambda data: pickle.dumps(Harmful())}
    with zipfile.ZipFile(vetted(forged(good, tmp_path, graph=change, change=examples))) as archive:
        content = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    graph = json.loads(content["models/model.json"])
    assert graph["guards_code"] == []
    assert graph["verifiers"] == ["TRAINING"]
    assert set(graph["graph_module"]) == {"graph", "signature", "module_call_graph"}
    assert [call["fqn"] for call in graph["graph_module"]["module_call_graph"]] == [""]
    assert {str(node["metadata"]) for node in nodes(graph)} == {"{}"}
    assert content["data/sample_inputs/model.pt"] == b""


def test_a_message_is_replaced(tmp_path, good):
    text = {"name": "assert_msg", "arg": {"as_string": "a secret"}, "kind": 1}

    def change(graph):
        nodes(graph).append(
            {"target": "torch.ops.aten._assert_scalar.default", "inputs": [text], "outputs": [], "metadata": {}}
        )
        return graph

    with zipfile.ZipFile(vetted(forged(good, tmp_path, graph=change))) as archive:
        assert b"a secret" not in archive.read("archive/models/model.json")


def test_nothing_is_unpacked(good, tmp_path):
    """Small files that would be large in memory."""
    packed, overlapping = tmp_path / "packed.pt2", tmp_path / "overlapping.pt2"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/models/model.json", b" " * (1 << 24))
    with zipfile.ZipFile(overlapping, "w") as archive:  # many names for one place in the file
        archive.writestr("archive/data/weights/weight_0", b" " * 4096)
        for number in range(1, 50):
            twin = copy.copy(archive.infolist()[0])
            twin.filename = f"archive/data/weights/weight_{number}"
            archive.filelist.append(twin)
    with pytest.raises(UserError, match="compressed entries"):
        vetted(packed)
    with pytest.raises(UserError, match="compressed entries"):
        vetted(overlapping)
    with pytest.raises(UserError, match="entries"):
        vetted(forged(good, tmp_path, add={f"extra/{number}": b"" for number in range(MOST_ENTRIES)}))
    with pytest.raises(UserError, match="65 bytes in byteorder"):
        vetted(forged(good, tmp_path, change={"byteorder": lambda data: b"x" * 65}))


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_a_damaged_file(tmp_path, content):
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(UserError, match="damaged or was cut short"):
        vetted(tmp_path / "model.pt2")
