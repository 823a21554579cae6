"""Findings that look like those of a real study, made up from a seed: for tests of tables, figures and the page."""

import itertools
import math

import numpy as np

from lightning_camrobust.study.findings import (
    ClassChange,
    Estimate,
    Findings,
    GalleryItem,
    ImageChange,
    MixedComparison,
    MixedRow,
    ModelDifference,
    ModelFindings,
    PairRow,
    RankTest,
    ReadingRow,
    ScoreRow,
    Stability,
)

METHODS = ("gradcam_plusplus", "gradcam", "hirescam", "xgradcam", "eigencam", "ablationcam")
NOISES = {
    "gaussian_noise": "photometric",
    "impulse_noise": "photometric",
    "gaussian_blur": "photometric",
    "jpeg": "photometric",
    "brightness": "photometric",
    "contrast": "photometric",
    "elastic": "geometric",
    "fgsm": "attack",
    "pgd": "attack",
}
SEVERITIES = (1, 3, 5)
UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def make_findings(*, models=("efficientnet_lite0", "resnet50"), methods=METHODS, noises=None, seed=0, **changes):
    """Return findings of `models` and `methods`; `changes` replace whole fields."""
    rng = np.random.default_rng(seed)
    noises = NOISES if noises is None else noises
    found = tuple(make_model(name, methods, noises, rng) for name in models)
    fields = {
        "title": "Noise robustness of class activation maps",
        "verdict": (
            f"On {models[0]}, {methods[0]} has the highest robustness, and no other setting changes that.",
            "Eigen-CAM is the least robust method on every model: its maps do not react when the prediction changes.",
            "Attacks tell another story: there, hardly a pair keeps its class, and consistency rests on few pairs.",
        ),
        "models": found,
        "mixed": tuple(make_mixed(measure, models, methods, rng) for measure in ("consistency", "responsiveness")),
        "differences": tuple(
            make_difference(first, second, methods[0], rng) for first, second in itertools.combinations(models, 2)
        ),
        "baselines": make_baselines(),
        "gallery": (),
        "multiplicity": (
            "Pairs of methods: Holm's correction within a model and a measure (15 tests).",
            "Classes: Holm's correction over all classes of one comparison.",
        ),
        "manifests": (make_manifest(models, methods, noises),),
        "notes": ("Ablation-CAM was measured on the first 300 images, as it costs one forward a channel.",),
    }
    return Findings(**(fields | changes))


def make_model(name, methods, noises, rng):
    scores = [
        make_score(method, kind, perturbation, severity, rng, place)
        for place, method in enumerate(methods)
        for kind, perturbation, severity in cells(noises)
    ]
    correct = [
        make_score(method, kind, None, None, rng, place)
        for place, method in enumerate(methods)
        for kind in dict.fromkeys(noises.values())
    ]
    many = len(methods) > 1
    return ModelFindings(
        model=name,
        target_layer="features.layer4.2.conv3",
        data="imagenet-1000",
        num_images=1000,
        accuracy=0.752,
        scores=tuple(scores),
        pairs=tuple(make_pairs(methods, rng)) if many else (),
        rank_tests=tuple(make_rank_test(each, methods, rng) for each in ("consistency", "responsiveness") if many),
        stability=make_stability(methods, rng, stable=name != "resnet50") if many else None,
        seconds=1834.2,
        correct_scores=tuple(correct),
    )


def cells(noises):
    for kind in dict.fromkeys(noises.values()):
        yield kind, None, None
        for noise in (noise for noise, its_kind in noises.items() if its_kind == kind):
            yield kind, noise, None
            for severity in SEVERITIES:
                yield kind, noise, severity


def make_score(method, kind, perturbation, severity, rng, place):
    strength = (severity or 3) / 5
    consistency = 0.86 - 0.3 * strength - 0.03 * place + 0.02 * rng.standard_normal()
    responsiveness = 0.72 - 0.05 * place + 0.02 * rng.standard_normal()
    pairs = 1000 if severity else 3000 if perturbation else 18000
    changed = int(pairs * (0.9 if kind == "attack" else 0.02 + 0.4 * strength**2) * rng.uniform(0.7, 1.1))
    if perturbation == "brightness" and severity == 1:
        changed = 0
    degenerate = int(rng.integers(0, 12))
    same = pairs - changed - degenerate
    width = 1.2 / math.sqrt(pairs / 3)
    if not changed:
        responsiveness = math.nan
    return ScoreRow(
        method=method,
        kind=kind,
        perturbation=perturbation,
        severity=severity,
        robustness=around(consistency * responsiveness, width),
        consistency=around(consistency, width),
        responsiveness=around(responsiveness, width),
        flip_rate=around(changed / (same + changed), width),
        robustness_macro=around(consistency * responsiveness - 0.01, width),
        same_count=same,
        changed_count=changed,
        degenerate_count=degenerate,
        same_images=min(1000, same),
        changed_images=min(1000, changed),
        chance_floor=0.0478123456789,
        low_support=min(same, changed) < 30,
    )


def around(value, width):
    return UNDEFINED if math.isnan(value) else Estimate(value, max(0.0, value - width), min(1.0, value + width))


def make_pairs(methods, rng):
    for measure in ("robustness", "consistency", "responsiveness"):
        for first, second in itertools.combinations(methods, 2):
            gap = 0.03 * (methods.index(second) - methods.index(first)) + 0.005 * rng.standard_normal()
            p_value = math.exp(-400 * gap**1.2) if gap > 0 else 0.5
            yield PairRow(
                measure=measure,
                first=first,
                second=second,
                difference=Estimate(gap, gap - 0.012, gap + 0.012),
                p_value=p_value,
                p_adjusted=min(1.0, 15 * p_value),
                effect=math.nan if measure == "robustness" else math.tanh(8 * gap),
                num_images=1000 if measure == "consistency" else 640,
                test="cluster bootstrap" if measure == "robustness" else "Wilcoxon",
            )


def make_rank_test(measure, methods, rng):
    count = len(methods)
    ranks = np.sort(1 + (count - 1) * rng.uniform(size=count))
    return RankTest(
        measure=measure,
        methods=tuple(methods),
        mean_ranks=tuple(float(rank) for rank in ranks),
        statistic=412.7,
        p_value=3e-87,
        kendall_w=0.31,
        num_images=640,
        critical_difference=0.31,
        alpha=0.05,
        cliques=(tuple(methods[:2]), tuple(methods[2:4])) if count >= 4 else (tuple(methods),),
    )


def make_stability(methods, rng, *, stable):
    labels = ("p=0.2 (main)", "p=0.5", "p=0.8", "p=0.9", "ties=a", "segmenter=grid", "pooling=max", "averaging=macro")
    rows = []
    for place, label in enumerate(labels):
        values = 0.5 - 0.05 * np.arange(len(methods)) + 0.01 * place * rng.standard_normal(len(methods))
        order = tuple(methods[index] for index in np.argsort(-values, kind="stable"))
        tau = 1.0 if place == 0 or stable else float(np.round(rng.uniform(0.2, 1.0), 3))
        interval = Estimate(tau, max(-1.0, tau - 0.15), min(1.0, tau + 0.1))
        rows.append(ReadingRow(label, tuple(float(value) for value in values), order, tau, interval, 1000))
    reasons = tuple(
        f"With {row.label} the ranking has tau = {row.tau:.2f} with the main setting, below 0.8."
        for row in rows
        if row.tau < 0.8
    )
    return Stability(tuple(methods), tuple(rows), not reasons, reasons, 0.8)


def make_mixed(measure, models, methods, rng):
    means = {
        (model, method): around(0.7 - 0.03 * place + 0.02 * rng.standard_normal(), 0.02)
        for model in models
        for place, method in enumerate(methods)
    }
    rows = (
        MixedRow("method", 812.2, len(methods) - 1, 1e-170, 1001 - len(methods)),
        MixedRow("model", 12.4, len(models) - 1, 0.00043, 1001 - len(models)),
        MixedRow("method x model", 7.7, max(1, (len(methods) - 1) * (len(models) - 1)), 0.173),
    )
    return MixedComparison(measure, rows, means, 0.42, 1000, 1000 * len(means))


def make_difference(first, second, method, rng):
    rows = tuple(
        PairRow(
            measure=measure,
            first=first,
            second=second,
            difference=Estimate(gap, gap - 0.01, gap + 0.01),
            p_value=p_value,
            p_adjusted=min(1.0, 4 * p_value),
            effect=math.nan,
            num_images=1000,
            test="cluster bootstrap",
        )
        for measure, gap, p_value in (
            ("robustness", 0.021, 0.0009),
            ("consistency", -0.004, 0.41),
            ("responsiveness", 0.046, 0.0009),
            ("flip_rate", 0.012, 0.012),
        )
    )
    gaps = rng.normal(0, 0.2, size=8)
    classes = tuple(
        ClassChange(int(label), 12, Estimate(gap, gap - 0.1, gap + 0.1), 0.02, 0.3)
        for label, gap in zip((3, 17, 207, 281, 340, 409, 555, 812), sorted(gaps, key=abs, reverse=True), strict=True)
    )
    worse = tuple(ImageChange(f"ILSVRC2012_val_{index:08d}.jpeg", index, 0.91, 0.21) for index in range(1, 6))
    better = tuple(ImageChange(f"ILSVRC2012_val_{index:08d}.jpeg", index, 0.18, 0.88) for index in range(6, 11))
    return ModelDifference(
        first=first,
        second=second,
        method=method,
        kind="photometric",
        num_images=1000,
        rows=rows,
        verdict=f"The maps of {second} are more robust than those of {first}: RM is higher by 0.021 [0.011, 0.031].",
        classes=classes,
        worse=worse,
        better=better,
    )


def make_baselines():
    return (
        {
            "title": "efficientnet_lite0, 200 images",
            "verdict": "The ranking by insertion depends on the baseline: between black and blur it turns round.",
            "tables": [
                {
                    "title": "Ranking by baseline",
                    "columns": ["baseline", "first", "tau with blur", "neutrality"],
                    "rows": [
                        ["blur", "gradcam", 1.0, 0.12],
                        ["black", "eigencam", -0.2, 0.31],
                        ["noise", "gradcam", 0.6, math.nan],
                    ],
                }
            ],
            "notes": ["Neutrality: how far the baseline alone moves the logits; smaller is better."],
        },
    )


def make_manifest(models, methods, noises):
    return {
        "digest": "77aa" * 16,
        "settings": {
            "grid": {
                "methods": {method: {"name": method, "seed": 99} for method in methods},
                "perturbations": {noise: {"name": noise} for noise in noises},
                "severities": list(SEVERITIES),
                "reading": make_reading(0.2),
                "readings": {"p=0.9": make_reading(0.9)},
                "target": "predicted",
                "seed": 0,
            },
            "models": {model: {"weights": "9f2c" * 16} for model in models},
        },
        "sessions": [
            {
                "versions": {"lightning_camrobust": "0.1.0", "torch": "2.4.1", "python": "3.11.7"},
                "trainer": {"accelerator": "cpu"},
            }
        ],
        "hashes": {"data": "9f2c" * 16, "resnet50": "ab31" * 16},
        "seconds": 3668.4,
    }


def make_reading(p):
    return {
        "similarity": {"name": "rbo", "p": p, "ties": "b"},
        "segmenter": {"name": "quickshift", "kernel_size": 5.0, "max_dist": 200.0, "ratio": 0.2},
        "reduction": "mean",
        "target": "predicted",
    }


def write_gallery(folder, *, count=4, size=160):
    """Write made-up overlays below `folder` and return their items."""
    from PIL import Image

    (folder / "gallery").mkdir(parents=True, exist_ok=True)
    items = []
    ramp = np.linspace(0, 1, size)
    for index in range(count):
        heat = np.exp(-((ramp[:, None] - 0.3 - 0.1 * index) ** 2 + (ramp[None, :] - 0.5) ** 2) / 0.03)
        picture = np.stack([255 * heat, 120 * np.ones_like(heat), 255 * (1 - heat)], axis=2).astype(np.uint8)
        file = f"gallery/{index:02d}.png"
        Image.fromarray(np.tile(picture, (1, 3, 1))).save(folder / file)
        word = "most" if index < count // 2 else "least"
        items.append(
            GalleryItem(
                title=f"{word} stable: image {index}, gradcam, gaussian_noise at severity 3, similarity 0.{9 - index}1",
                file=file,
                alt="The image, its clean map and its noisy map side by side.",
            )
        )
    return tuple(items)
