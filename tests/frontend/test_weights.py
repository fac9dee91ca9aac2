"""Weight files: reading them lazily, and every way they can be wrong."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lucid import nn
from lucid.errors import MissingPackageError, WeightsError
from lucid.frontend.weights import FileTensor, load_weights


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


def arrays(prefix: str = "") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {key: tensor.shape for key, tensor in model().state_dict().items()}
    return {prefix + k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def test_safetensors_are_read_when_used(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(arrays() | {"1.num_batches_tracked": np.zeros(1, np.int64)}, path)
    network = model()
    assert network.load_weights(path) is network
    state = network.state_dict()
    assert not any(tensor.materialised for tensor in state.values())
    assert isinstance(state["0.weight"].stored, FileTensor)
    np.testing.assert_array_equal(state["0.weight"].numpy(), arrays()["0.weight"])
    assert state["0.weight"].materialised
    assert not state["0.bias"].materialised
    copy = pickle.loads(pickle.dumps(state["3.bias"].stored))
    np.testing.assert_array_equal(np.asarray(copy), arrays()["3.bias"])


def test_other_float_widths_become_float32(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({k: a.astype(np.float16) for k, a in arrays("module.").items()}, path)
    weight = model().load_weights(path).state_dict()["0.weight"].numpy()
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight, arrays()["0.weight"], rtol=1e-2, atol=1e-3)


def bfloat16_file(path: Path, values: dict[str, np.ndarray]) -> None:
    """What torch saves of bfloat16 tensors, written by hand: numpy knows no bfloat16."""
    import json

    header, blobs, at = {}, [], 0
    for key, array in values.items():
        blob = (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[key] = {
            "dtype": "BF16",
            "shape": list(array.shape),
            "data_offsets": [at, at + len(blob)],
        }
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def test_bfloat16(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    bfloat16_file(path, arrays())
    weight = model().load_weights(path).state_dict()["0.weight"].numpy()
    np.testing.assert_allclose(weight, arrays()["0.weight"], rtol=1e-2)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    save_file(arrays(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"w\.safetensors: .*truncated or damaged"):
        model().load_weights(path)


def test_a_missing_package_is_no_damage(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "w.safetensors"
    save_file(arrays(), path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingPackageError, match=r"w\.safetensors: .*pip install safetensors"):
        model().load_weights(path)


def test_garbage(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(WeightsError, match="truncated or damaged"):
        load_weights(path)


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(tmp_path / "absent.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(tmp_path / "folder.safetensors")
    with pytest.raises(WeightsError, match="not a weight file known here"):
        load_weights(tmp_path / "w.txt")


def test_pth_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match="needs torch: `pip install torch`"):
        load_weights(tmp_path / "w.pth")


def test_pth_with_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(a) for key, a in arrays("module.").items()}
    tensors["module.1.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "w.pth")
    loaded = model().load_weights(tmp_path / "w.pth").state_dict()
    np.testing.assert_array_equal(loaded["0.weight"].numpy(), arrays()["0.weight"])
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="torch cannot read it"):
        load_weights(tmp_path / "w.pth")


def test_every_problem_is_in_one_error() -> None:
    state = arrays()
    before = model().state_dict()["1.bias"].numpy()
    del state["0.bias"]
    state["0.weight"] = state["0.weight"][:3]
    state["3.bias"] = np.zeros(3, np.int64)
    state["extra"] = np.zeros(2, np.float32)
    state["1.weight"] = "text"
    network = model()
    with pytest.raises(WeightsError) as error:
        network.load_state_dict(state)
    text = str(error.value)
    assert "the state dict does not fit Sequential: 5 tensors" in text
    assert "missing: 0.bias [4]" in text
    assert "unexpected: extra [2]" in text
    assert "0.weight: expected shape [4, 2, 3, 3], got [3, 2, 3, 3]" in text
    assert "1.weight: expected shape [4], got a str" in text
    assert "3.bias: expected floating numbers, got int64" in text
    np.testing.assert_array_equal(network.state_dict()["1.bias"].numpy(), before)


def test_not_strict() -> None:
    state = arrays()
    del state["0.bias"]
    state["extra"] = np.zeros(2, np.float32)
    network = model()
    result = network.load_state_dict(state, strict=False)
    assert result.missing_keys == ["0.bias"]
    assert result.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(network.state_dict()["3.bias"].numpy(), state["3.bias"])
    with pytest.raises(WeightsError, match="expected shape"):
        network.load_state_dict({"0.bias": np.zeros(5)}, strict=False)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_nested_and_prefixed(wrapper: str) -> None:
    network = model()
    network.load_state_dict({wrapper: arrays("module."), "epoch": 3})
    np.testing.assert_array_equal(network.state_dict()["3.bias"].numpy(), arrays()["3.bias"])
    with pytest.raises(WeightsError, match=r"holds 0\.weight twice"):
        network.load_state_dict(arrays() | arrays("module."))


def test_loaded_arrays_are_copies() -> None:
    state = arrays()
    network = model()
    network.load_state_dict(state)
    state["3.bias"][:] = 7
    assert (network.state_dict()["3.bias"].numpy() != 7).all()
    twin = model()
    twin.load_state_dict(network.state_dict())
    np.testing.assert_array_equal(twin.state_dict()["3.bias"].numpy(), arrays()["3.bias"])
