"""Arrows of imports point one way. A new module has to find its place in `LEVELS`; a member file has one already."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import lightning_camrobust

PACKAGE = lightning_camrobust.__name__
ROOT = Path(lightning_camrobust.__file__).parent
STAGES = ("cams", "perturb", "segment", "compare", "baseline")

# A module may import from lower levels only. A folder stands for all its files that are not named themselves.
LEVELS = (
    ("_version", "errors", "blocks", "both_lightnings", "budget", "checkpointing", "precision"),
    ("layout", "pixels"),
    ("types",),
    (
        "members",
        "severity",
        "randomness",
        "isolation",
        "pooling",
        "overlap",
        "running_statistics",
        "second_derivatives",
        "soft_agreement",
        "replay",
        "affine",
        "logits",
        "heldout",
        "enlarging",
        "quickshift_density",
        "quickshift_forest",
        "copies",
        "cache",
        "images",
        "settings",
        "turns",
        "spelling",
        "freshness",
        "report.layout",
        "report.naming",
        "stopping_rule",
        "messages",
        "fusion",
        "warping",
        "reducing",
        "ascent",
        "imaging",
        "certify.operations",
        "certify.smoothing",
        "certify.topk",
        "principal",
    ),
    (
        "patience",
        "tradeoff",
        "head",
        "target_layer",
        "network",
        "imaging.ferns",
        "content",
        "masking",
        "critique.replacing",
        "attention",
        "codec",
        "critique.orders",
        "critique.controls",
        "critique.neutrality",
        "critique.ranking",
        "certify.network_bounds",
        "certify.symbols",
        "certify.max_pooling",
        "certify.smoothing_method",
    ),
    ("layers", "stability", "critique.curves", "certify.function_rules", "certify.linear_bounds", *STAGES),
    (
        "trace",
        "segmentation",
        "comparison",
        "training_pass",
        "summary",
        "batches",
        "reading",
        "sensitivity",
        "critique.scores",
        "certify.layer_rules",
        "certify.interval",
        "certify.attack",
        "certify.noisy_maps",
    ),
    (
        "explained",
        "functional",
        "training_members",
        "metric",
        "segmented",
        "critique",
        "certify.graph",
        "certify.crown",
    ),
    ("explain", "certify.record"),
    ("plan", "perturbation", "scoring", "repeatability", "certify"),
    ("disturbing", "looking", "rows", "consistency_loss"),
    ("pairing",),
    ("probe",),
    ("gallery", "measure"),
    ("session", "report.tiles", "report.card"),
    ("report.drawing",),
    ("report.curves", "report.portrait"),
    ("report.publication",),
    ("report", "trainers"),
    ("report.destinations",),
    ("publishing",),
    ("monitored",),
    ("callback", "stopping", "keeping"),
    # The study, on top of all that.
    (
        "commands.naming",
        "study.architecture",
        "study.checkpoints",
        "study.conditions",
        "study.critique_settings",
        "study.figures.vector",
        "study.image",
        "study.outcomes",
        "study.page.citation",
        "study.page.writing",
        "study.progress",
        "study.region_maps",
        "study.sources.arrays",
        "study.sources.datamodule",
        "study.sources.framing",
        "study.sources.labels",
        "study.storage",
    ),
    (
        "commands.options",
        "commands.parsing",
        "study.figures.style",
        "study.findings",
        "study.manifest",
        "study.paired",
        "study.rankings",
        "study.rows",
        "study.sources.npz",
        "study.sources.pictures",
        "study.sources.tables",
        "study.statistics.distribution",
        "study.statistics.image_means",
        "study.statistics.random_intercept",
        "study.statistics.totals",
        "study.statistics.wald",
        "study.verdict_on_baselines",
        "study.weights",
    ),
    (
        "study.figures.curves",
        "study.figures.sheet",
        "study.model",
        "study.page.pictures",
        "study.page.tables",
        "study.page.texts",
        "study.shards",
        "study.sources.dataset",
        "study.sources.folder",
        "study.statistics.correction",
        "study.statistics.friedman",
        "study.statistics.model_tables",
        "study.statistics.pair_sums",
        "study.statistics.signed_rank",
        "study.verdict",
        "study.wording",
    ),
    (
        "study.description",
        "study.figures.points",
        "study.headline",
        "study.measuring",
        "study.model_pair",
        "study.page.sentences",
        "study.results",
        "study.show",
        "study.source",
        "study.statistics.intervals",
        "study.statistics.mixed",
        "study.statistics.resampling",
        "study.statistics.support",
        "study.statistics.wilcoxon",
    ),
    (
        "study.class_changes",
        "study.difference_verdict",
        "study.figures.critical_difference",
        "study.figures.difference",
        "study.figures.forest",
        "study.figures.heatmap",
        "study.figures.severity_curves",
        "study.measured",
        "study.page.methods_text",
        "study.statistics.bootstrap",
        "study.sweep",
    ),
    (
        "study.difference",
        "study.figures.settings",
        "study.grid",
        "study.scores",
        "study.settings",
    ),
    (
        "study.critique",
        "study.gallery",
        "study.job",
        "study.page.illustrations",
        "study.swaps",
    ),
    (
        "study.conclusion",
        "study.page.sections",
        "study.prober",
    ),
    (
        "study.model_findings",
        "study.page.report_page",
        "study.running",
    ),
    (
        "commands.measuring",
        "study.across_models",
    ),
    (
        "commands.show",
        "study.analysis",
    ),
    ("commands.analysing",),
    (
        "commands.compare",
        "commands.report",
        "commands.study",
    ),
    (),
    (),
    (),
    ("study",),
    ("commands",),
    ("cli",),
    ("__main__",),
    ("__init__",),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}

# Where a heavy library may be named at all, and where a module may even load it when it is itself imported.
NOBODY = ()
TRAINING = ("callback", "stopping", "keeping", "both_lightnings")
HEAVY = {
    "lightning": {"named": (*TRAINING, "study", "commands"), "loaded": (*TRAINING, "study")},
    "pytorch_lightning": {"named": (*TRAINING, "study", "commands"), "loaded": (*TRAINING, "study")},
    "torchmetrics": {"named": ("metric", "compare.ssim", "certify.metric"), "loaded": ("metric", "certify.metric")},
    "matplotlib": {"named": ("report", "study.figures", "study.show", "study.page"), "loaded": NOBODY},
    "pytorch_grad_cam": {"named": ("cams.pytorch_grad_cam",), "loaded": NOBODY},
    "skimage": {"named": ("segment",), "loaded": NOBODY},
    "torchvision": {"named": NOBODY, "loaded": NOBODY},
    "PIL": {"named": ("perturb.jpeg", "study.sources", "study.show", "study.page", "commands"), "loaded": NOBODY},
    "wandb": {"named": ("report.wandb",), "loaded": NOBODY},
    "mlflow": {"named": NOBODY, "loaded": NOBODY},
    "pyarrow": {"named": ("study",), "loaded": NOBODY},
    "pandas": {"named": NOBODY, "loaded": NOBODY},
    "jinja2": {"named": ("study.page",), "loaded": NOBODY},
    "rich": {"named": ("study.progress", "commands"), "loaded": NOBODY},
}


class Arrow(NamedTuple):
    """One import: what is named, and whether that happens as soon as the importing module is loaded."""

    to: str
    line: int
    at_once: bool


def module_names():
    paths = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def source_of(module):
    path = ROOT.joinpath(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


def imported_module(start, name):
    """Say which module `from start import name` names: a module of that package, or `start` itself."""
    if start == PACKAGE:
        return f"{start}.{name}"
    folder = ROOT.joinpath(*start.split(".")[1:]) if start.startswith(f"{PACKAGE}.") else None
    inner = folder is not None and ((folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file())
    return f"{start}.{name}" if inner else start


def arrows(source, module):
    """List all imports of a source text, those in functions and under TYPE_CHECKING included."""
    package = f"{PACKAGE}.{module}".rpartition(".")[0]
    tree = ast.parse(source)
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or is_for_type_checkers(node)
        for part in (node.body if isinstance(node, ast.If) else [node])
        for inner in ast.walk(part)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            # `from package import module` names a module as well.
            names = [imported_module(start, each.name) for each in node.names]
        else:
            continue
        found += [Arrow(name, node.lineno, id(node) not in later) for name in names]
    return found


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def lies_in(module, places):
    return any(module == place or module.startswith(f"{place}.") for place in places)


def place_of(module):
    """Name the entry of LEVELS that a module falls under."""
    folder = module.partition(".")[0]
    return module if module in LEVEL_OF else folder if folder in LEVEL_OF else None


def wrong_arrows(source, module):
    """Describe the imports in a source text that break a rule."""
    complaints = []
    for arrow in arrows(source, module):
        where = f"{module}:{arrow.line} imports {arrow.to}"
        library, _, rest = arrow.to.partition(".")
        if library == PACKAGE:
            complaints += [f"{where}, {why}" for why in wrong_levels(module, rest or "__init__")]
        elif library in HEAVY:
            rule = HEAVY[library]
            if not lies_in(module, rule["named"]):
                complaints.append(f"{where}, which only {rule['named'] or 'nobody'} may")
            elif arrow.at_once and not lies_in(module, rule["loaded"]):
                complaints.append(f"{where} at once; move it into the function that needs it")
    return complaints


def wrong_levels(module, target):
    source, destination = place_of(module), place_of(target)
    if source is None or destination is None:
        return [f"but {target if source else module} has no place: add it to LEVELS in {__name__}"]
    if LEVEL_OF[destination] < LEVEL_OF[source]:
        return []
    if source in STAGES and destination in STAGES:
        return ["but a member never imports another member, of its own stage or of another"]
    return [f"but {target} is not below {module} in LEVELS"]


def test_every_module_has_a_place():
    homeless = [module for module in module_names() if place_of(module) is None]
    assert homeless == [], f"add {homeless} to LEVELS in {__name__}, above everything they import"


def test_every_place_has_a_module():
    gone = [place for place in LEVEL_OF if not any(lies_in(module, [place]) for module in module_names())]
    assert gone == [], f"remove {gone} from LEVELS in {__name__}"


@pytest.mark.parametrize("module", module_names())
def test_arrows_point_down(module):
    assert wrong_arrows(source_of(module), module) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("probe", f"from {PACKAGE}.callback import CAMRobustnessCallback", "callback is not below probe"),
        ("probe", "from .callback import CAMRobustnessCallback", "callback is not below probe"),
        ("probe", f"from {PACKAGE} import compute_cams", "compute_cams has no place"),
        ("probe", f"import {PACKAGE}", "__init__ is not below probe"),
        ("probe", f"from {PACKAGE} import gallery", "gallery is not below probe"),
        ("plan", f"def later():\n    import {PACKAGE}.probe", "probe is not below plan"),
        ("trace", f"from {PACKAGE}.segmentation import segment_images", "segmentation is not below trace"),
        ("cams.gradcam", f"from {PACKAGE}.cams.hirescam import HiResCAM", "never imports another member"),
        ("cams.gradcam", "from .hirescam import HiResCAM", "never imports another member"),
        ("cams.gradcam", f"from {PACKAGE}.compare.rbo import Ties", "never imports another member"),
        ("newcomer", f"from {PACKAGE}.types import Trace", "newcomer has no place"),
        ("probe", "import lightning.pytorch as pl", "only ('callback', 'stopping', "),
        ("report.tensorboard", "from pytorch_lightning import Trainer", "only ('callback', 'stopping', "),
        ("functional", "from torchmetrics import Metric", "only ('metric', "),
        (
            "gallery",
            "def draw():\n    import matplotlib.pyplot",
            "only ('report', 'study.figures', 'study.show', 'study.page') may",
        ),
        ("report.drawing", "from matplotlib.figure import Figure", "move it into the function"),
        ("cams.pytorch_grad_cam", "import pytorch_grad_cam", "move it into the function"),
        ("cams.gradcam", "def call():\n    import pytorch_grad_cam", "only ('cams.pytorch_grad_cam',) may"),
        ("segment.slic", "try:\n    from skimage import segmentation\nexcept ImportError:\n    pass", "move it into"),
        ("segmentation", "def call():\n    import skimage", "only ('segment',) may"),
        ("pixels", "def call():\n    from torchvision import transforms", "only nobody may"),
    ],
)
def test_wrong_arrow_is_found(module, source, complaint):
    (found,) = wrong_arrows(source, module)
    assert complaint in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("callback", f"from {PACKAGE}.compare.rbo import Ties\nimport lightning.pytorch, pytorch_lightning"),
        ("metric", "from torchmetrics import Metric"),
        ("report.drawing", "def draw():\n    from matplotlib.figure import Figure"),
        ("report.drawing", "if TYPE_CHECKING:\n    from matplotlib.figure import Figure"),
        ("segment.slic", "class Slic:\n    def __call__(self):\n        from skimage.segmentation import slic"),
        ("cams.gradcam", f"from {PACKAGE}.types import Trace\nimport torch"),
    ],
)
def test_right_arrow_is_left_alone(module, source):
    assert wrong_arrows(source, module) == []


def loaded_after(statement):
    """Tell which heavy libraries a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint([name for name in {list(HEAVY)} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(finished.stdout)


def test_loaded_libraries_are_seen():
    assert "matplotlib" in loaded_after("import matplotlib")


def test_importing_the_package_stays_light():
    assert loaded_after(f"import {PACKAGE}") == []


def test_explaining_needs_no_trainer():
    assert loaded_after(f"from {PACKAGE} import compute_cams, perturb_images, segment_images") == []


def test_public_names_are_sorted_and_exist():
    names = lightning_camrobust.__all__
    assert len(names) > 5
    assert sorted(names) == names
    assert all(getattr(lightning_camrobust, name) is not None for name in names)


def test_public_names_are_listed_once():
    names = lightning_camrobust.__all__
    assert sorted(set(names)) == names


def test_public_names_are_those_of_the_stub():
    stub = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    names = {each.asname or each.name for node in stub.body if isinstance(node, ast.ImportFrom) for each in node.names}
    assert names == set(lightning_camrobust.__all__)
