"""Hybrid heads: a variational quantum circuit behind a convolution, simulated in plain torch (no PennyLane needed)."""

import math

import pytest
import torch
from torch import nn

from lightning_camrobust import compute_cams, measure_stability
from lightning_camrobust.repeatability import cam_noise_floor
from lightning_camrobust.trace import trace

QUBITS = 4
METHODS = ("gradcam", "layercam", "hirescam", "gradcam_plusplus", "xgradcam", "eigencam", "ablationcam")


def rotate(state, angle, qubit):
    """RY on one qubit of a real state vector (b, 2, 2, 2, 2); angle (b,)."""
    state = state.movedim(qubit + 1, 1)
    cos, sin = (each(angle / 2).reshape(-1, *[1] * (QUBITS - 1)) for each in (torch.cos, torch.sin))
    zero, one = state[:, 0], state[:, 1]
    return torch.stack([cos * zero - sin * one, sin * zero + cos * one], dim=1).movedim(1, qubit + 1)


def flip_if(state, control, target):
    """CNOT."""
    state = state.movedim((control + 1, target + 1), (1, 2))
    return torch.stack([state[:, 0], state[:, 1].flip(1)], dim=1).movedim((1, 2), (control + 1, target + 1))


class Circuit(nn.Module):
    """Angles (b, 4) in, expectations of Z (b, 4) in [-1, 1] out; `shots` measures instead of computing."""

    def __init__(self, shots=None, dtype=torch.float64):
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(-1.0, 1.5, 2 * QUBITS, dtype=dtype).reshape(2, QUBITS))
        self.shots = shots

    def forward(self, angles):
        angles = angles.to(self.weights.dtype)
        state = torch.zeros(len(angles), *[2] * QUBITS, dtype=angles.dtype)
        state[(slice(None), *[0] * QUBITS)] = 1
        for layer in self.weights:
            for qubit in range(QUBITS):
                state = rotate(state, angles[:, qubit] + layer[qubit], qubit)
            for qubit in range(QUBITS):
                state = flip_if(state, qubit, (qubit + 1) % QUBITS)
        chances = state.square()
        exact = torch.stack([self.of_z(chances, qubit) for qubit in range(QUBITS)], dim=1)
        if self.shots is None:
            return exact
        drawn = torch.binomial(torch.full_like(exact, self.shots), (1 + exact.detach()).clamp(0, 2) / 2)
        noise = 2 * drawn / self.shots - 1 - exact.detach()
        # Finite shots make the gradient random as well.
        return exact * (1 + noise) + noise

    @staticmethod
    def of_z(chances, qubit):
        zero, one = chances.movedim(qubit + 1, 1).flatten(2).sum(dim=2).unbind(dim=1)
        return zero - one


class Hybrid(nn.Module):
    def __init__(self, shots=None, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.reduce = nn.Linear(6, QUBITS)
        nn.init.normal_(self.reduce.weight, std=3.0)
        self.circuit = Circuit(shots, dtype)

    def forward(self, images):
        return self.circuit(torch.tanh(self.reduce(self.conv(images).mean(dim=(2, 3)))) * math.pi / 2)


def images():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(5))


def test_the_circuit_is_a_circuit():
    # RY(a)|0> measured in Z gives cos(a); entangling one qubit with another copies its value.
    state = torch.zeros(1, *[2] * QUBITS, dtype=torch.float64)
    state[0, 0, 0, 0, 0] = 1
    turned = flip_if(rotate(state, torch.tensor([0.7], dtype=torch.float64), 0), 0, 2)
    for qubit, wanted in ((0, math.cos(0.7)), (1, 1.0), (2, math.cos(0.7))):
        assert float(Circuit.of_z(turned.square(), qubit)) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_hybrid_head_of_mixed_float_types_is_explained(method, dtype):
    net = Hybrid(dtype=dtype)
    (maps,) = compute_cams(net, images(), method).values()
    assert (maps.shape, maps.dtype) == ((3, 12, 12), torch.float32)
    assert maps.isfinite().all()
    assert (maps.amax(dim=(1, 2)) > 0).any()
    assert net(images()).abs().max() <= 1


def test_gradient_is_the_parameter_shift_rule():
    net = Hybrid().double()
    pass_ = trace(net, images().double(), target_layer=net.conv)
    activation, classes = pass_.activation, pass_.classes
    angles = torch.tanh(net.reduce(activation.mean(dim=(2, 3)))) * math.pi / 2
    with torch.no_grad():
        columns = []
        for qubit in range(QUBITS):
            # Each angle turns its qubit twice, in gates of their own: shift each occurrence on its own.
            total = torch.zeros(3, dtype=torch.float64)
            for layer in range(2):
                for sign in (1, -1):
                    shifted = Circuit()
                    shifted.weights[layer, qubit] += sign * math.pi / 2
                    total += sign * shifted(angles).gather(1, classes[:, None])[:, 0] / 2
            columns.append(total)
        outer = torch.stack(columns, dim=1) * (1 - (angles / (math.pi / 2)) ** 2) * math.pi / 2
        wanted = (outer @ net.reduce.weight) / activation[0, 0].numel()
    torch.testing.assert_close(pass_.gradient, wanted[..., None, None].expand_as(activation), rtol=0, atol=1e-15)


def test_stability_of_a_hybrid_head_is_measured():
    found = measure_stability(Hybrid(), images(), ["gradcam", "layercam"], "gaussian_noise", segmenter="grid")
    assert all(row["same_count"] + row["changed_count"] + row["degenerate_count"] == 9 for row in found.table())


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_noise_floor_is_0_for_a_deterministic_head_and_more_for_a_sampled_one(method):
    exact, sampled = (cam_noise_floor(Hybrid(shots), images(), method)[method] for shots in (None, 64))
    alive = ~exact.isnan()
    assert alive.any()
    assert (exact[alive] == 0).all()
    assert (sampled[alive] > 0).all()
    many = cam_noise_floor(Hybrid(64 * 400), images(), method)[method]
    assert (many[alive] < sampled[alive]).all()


def test_noise_floor_of_a_map_of_zeros_is_undefined():
    class Dark(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3)) * torch.tensor([-1.0, -2.0, -3.0])

    floor = cam_noise_floor(nn.Sequential(nn.Identity(), Dark()), images(), "hirescam", target_layer="0")
    assert floor["hirescam"].isnan().all()


def test_pennylane_head():
    qml = pytest.importorskip("pennylane", reason="PennyLane is not installed; the simulation stands for it")
    device = qml.device("default.qubit", wires=QUBITS)

    @qml.qnode(device, interface="torch", diff_method="backprop")
    def circuit(inputs, weights):
        qml.AngleEmbedding(inputs, wires=range(QUBITS), rotation="Y")
        qml.BasicEntanglerLayers(weights, wires=range(QUBITS), rotation=qml.RY)
        return [qml.expval(qml.PauliZ(wire)) for wire in range(QUBITS)]

    net = Hybrid()
    net.circuit = qml.qnn.TorchLayer(circuit, {"weights": (2, QUBITS)})
    (maps,) = compute_cams(net, images(), "gradcam").values()
    assert maps.isfinite().all()
