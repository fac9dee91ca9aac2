"""The ResNet and ResNeSt families: parameter counts, keys, variants, and the documented example."""

import numpy as np
import pytest

import lucid
from lucid.errors import LucidError, UnknownNameError, WeightsError
from lucid.ir.interpret import interpret
from lucid.ir.ops import Softmax
from lucid.ir.text import parse_graph
from lucid.ir.verify import verify
from lucid.models import ResNeSt, ResNet, create_model, list_models, model_info
from lucid.models.resnest import SplitAttention, _ResNeStBottleneck
from lucid.models.resnet import _BasicBlock, _Bottleneck

COUNTS = {
    "resnest_14": 10_611_688,
    "resnest_26": 17_069_448,
    "resnest_50": 27_483_240,
    "resnest_101": 48_275_016,
    "resnest_200": 70_201_544,
    "resnest_269": 110_929_480,
    "resnest_50_4s2x40d": 30_417_592,
    "resnest_50_1s4x24d": 25_677_000,
    "resnest_50_fast_1s1x64d": 26_217_896,
    "resnest_50_fast_2s1x64d": 27_483_240,
    "resnest_50_fast_4s1x64d": 31_912_712,
    "resnest_50_fast_1s2x40d": 25_946_680,
    "resnest_50_fast_2s2x40d": 26_943_792,
    "resnet_18": 11_689_512,
    "resnet_34": 21_797_672,
    "resnet_50": 25_557_032,
    "resnet_101": 44_549_160,
    "resnet_152": 60_192_808,
}
NATIVE = {"resnest_101": 256, "resnest_200": 320, "resnest_269": 416}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_and_the_graph(name: str) -> None:
    model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]

    info = model_info(name)
    assert info.input_shape == (1, 3, NATIVE.get(name, 224), NATIVE.get(name, 224))
    graph = lucid.trace(model, info.input_shape)
    assert graph.name == name
    verify(graph)
    statistics = sum(b.numel() for b in model.buffers())
    assert graph.parameter_count() == COUNTS[name] + statistics
    assert set(graph.sources()) == set(model.state_dict())
    assert not any(p.materialised for p in model.state_dict().values())


def test_the_graph_prints_and_parses() -> None:
    graph = lucid.trace(create_model("resnest_14"), (1, 3, 224, 224))
    text = str(graph)
    assert text.startswith("graph resnest_14(%x: f32[N,3,224,224]) -> f32[N,1000] {")
    assert 'at "layer1.0.conv2.fc1"' in text
    assert parse_graph(text) == graph


def test_keys_and_shapes_are_the_official_ones() -> None:
    state = create_model("resnest_50").state_dict()
    assert len(state) == 476 - 71  # all but num_batches_tracked
    for key, shape in {
        "conv1.0.weight": (32, 3, 3, 3),
        "conv1.6.weight": (64, 32, 3, 3),
        "bn1.running_var": (64,),
        "layer1.0.conv2.conv.weight": (128, 32, 3, 3),
        "layer1.0.conv2.fc1.weight": (32, 64, 1, 1),
        "layer1.0.conv2.fc1.bias": (32,),
        "layer1.0.conv2.bn0.running_mean": (128,),
        "layer1.0.conv2.fc2.weight": (128, 32, 1, 1),
        "layer1.0.conv3.weight": (256, 64, 1, 1),
        "layer4.0.downsample.1.weight": (2048, 1024, 1, 1),
        "layer4.0.downsample.2.bias": (2048,),
        "fc.weight": (1000, 2048),
    }.items():
        assert state[key].shape == shape
    assert list(state)[:2] == ["conv1.0.weight", "conv1.1.weight"]

    assert "layer2.0.downsample.0.weight" in create_model("resnet_18").state_dict()
    plain = set(create_model("resnest_14", radix=0).state_dict())
    assert {"layer1.0.conv2.weight", "layer1.0.bn2.running_mean"} <= plain
    assert not any("fc1" in key for key in plain)


def test_the_documented_example_runs() -> None:
    model = ResNeSt(
        block=_ResNeStBottleneck,
        layers=[3, 4, 6, 3],
        num_classes=1000,
        base_width=64,
        stem_width=32,
        cardinality=1,
        radix=2,
        avd=True,
    )
    assert isinstance(model, ResNet)
    input_tensor = lucid.random.randn(1, 3, 224, 224)
    output = model(input_tensor)
    assert output.shape == (1, 1000)
    assert np.isfinite(output.numpy()).all()
    compiled = lucid.compile(model, (1, 3, 224, 224))(input_tensor)
    assert isinstance(compiled, lucid.Tensor)
    error = np.abs(compiled.numpy() - output.numpy()).max()
    assert error <= 1e-5 * np.abs(output.numpy()).max()


@pytest.mark.parametrize("avd", [True, False])
@pytest.mark.parametrize("cardinality", [1, 2, 4])
@pytest.mark.parametrize("radix", [0, 1, 2, 4])
def test_every_variant_runs(radix: int, cardinality: int, avd: bool) -> None:
    model = create_model(
        "resnest_14", layers=[1, 1], radix=radix, cardinality=cardinality, avd=avd, num_classes=7
    )
    x = lucid.random.randn(2, 3, 33, 40)
    eager = model(x).numpy()
    assert eager.shape == (2, 7)
    graph = lucid.trace(model, (1, 3, 33, 40))
    (captured,) = interpret(graph, [x.numpy()])
    np.testing.assert_allclose(captured, eager, rtol=1e-4, atol=1e-5 * np.abs(eager).max())
    assert bool(graph.find(Softmax)) == (radix > 1)


@pytest.mark.parametrize("avd_first", [True, False])
def test_avd_pools_before_or_after_the_split_attention(avd_first: bool) -> None:
    model = create_model("resnest_14", layers=[1, 1], avd_first=avd_first)
    graph = lucid.trace(model, (1, 3, 64, 64))
    pool = next(n for n in graph.nodes if n.origin == "layer2.0.avd_layer")
    assert pool.inputs[0].producer.origin == ("layer2.0.relu" if avd_first else "layer2.0.conv2")


@pytest.mark.parametrize("layers", [[1], [1, 2], [1, 1, 1], (1, 1, 1, 1)])
def test_one_to_four_stages(layers: list[int]) -> None:
    model = create_model("resnest_50", layers=layers, num_classes=3, in_channels=1)
    assert model.fc.in_features == 256 << (len(layers) - 1)
    assert model(lucid.random.randn(1, 1, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize("layers", [[], [1] * 5, [1, 0]])
def test_other_stages_are_an_error(layers: list[int]) -> None:
    with pytest.raises(LucidError, match="one to four positive block counts"):
        ResNet(_BasicBlock, layers)


def test_wide_and_grouped_resnets() -> None:
    resnext = create_model("resnet_50", cardinality=32, base_width=4)
    assert sum(p.numel() for p in resnext.parameters()) == 25_028_904
    with pytest.raises(LucidError, match="_BasicBlock"):
        create_model("resnet_18", cardinality=2)
    assert ResNet(_Bottleneck, [1]).conv1.weight.shape == (64, 3, 7, 7)


def test_split_attention_refuses_radix_zero() -> None:
    with pytest.raises(LucidError, match="radix"):
        SplitAttention(8, 8, radix=0)


def test_names() -> None:
    assert set(COUNTS) <= set(list_models())
    assert list_models("resnet_*") == sorted(n for n in COUNTS if n.startswith("resnet_"))
    with pytest.raises(UnknownNameError, match=r"'resnest50'.*did you mean.*resnest_50"):
        create_model("resnest50")
    with pytest.raises(UnknownNameError, match=r"no parameter 'radx': did you mean radix"):
        create_model("resnest_50", radx=1)
    with pytest.raises(UnknownNameError, match="no parameter 'radix'"):
        create_model("resnet_50", radix=1)


def test_weights_of_a_factory() -> None:
    with pytest.raises(WeightsError, match="give the path"):
        create_model("resnest_50", weights="pretrained")
    with pytest.raises(WeightsError, match="no such file"):
        create_model("resnest_50", weights="absent.safetensors")


def test_the_digits_network_is_registered() -> None:
    info = model_info("resnest_digits")
    assert info.labels == tuple("0123456789")
    assert info.preprocess.channels == 1
    model = create_model("resnest_digits")
    assert model(lucid.random.randn(*info.input_shape)).shape == (1, 10)
    generated = create_model("resnest_digits", weights=None, num_classes=4)
    assert generated(lucid.random.randn(*info.input_shape)).shape == (1, 4)
