"""Draw every corruption at severities 1, 3 and 5 on one of scikit-image's photographs.

For example: python examples/show_perturbations.py --picture perturbations.jpg
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from skimage.data import astronaut
from skimage.transform import resize

from lightning_camrobust import perturb_images
from lightning_camrobust.members import member_names, resolve_member

SEVERITIES = (1, 3, 5)
COLUMNS = 7


def corruptions() -> list[str]:
    # Attacks need a network, and the wrapper a transform.
    members = {name: resolve_member("perturb", name) for name in member_names("perturb") if name != "transformed"}
    return [
        name
        for name, member in members.items()
        if not getattr(member, "needs_network", False) and not hasattr(member, "disturb_trace")
    ]


def draw(picture: Path, *, side: int) -> None:
    photograph = resize(astronaut()[:400, 50:450], (224, 224), anti_aliasing=True)
    images = torch.from_numpy(photograph).permute(2, 0, 1)[None].float()
    names = corruptions()
    bands = -(-len(names) // COLUMNS)
    figure = plt.figure(figsize=(COLUMNS * side / 100, bands * (len(SEVERITIES) * side + 25) / 100), dpi=100)
    for band, part in enumerate(figure.subfigures(bands, squeeze=False)[:, 0]):
        axes = part.subplots(len(SEVERITIES), COLUMNS, squeeze=False)
        for panel in axes.flat:
            panel.set_axis_off()
        for column, name in enumerate(names[band * COLUMNS : (band + 1) * COLUMNS]):
            axes[0, column].set_title(name, fontsize=9, pad=3)
            for row, severity in enumerate(SEVERITIES):
                noisy = perturb_images(images, name, severity)[0]
                axes[row, column].imshow(noisy.permute(1, 2, 0))
        part.subplots_adjust(left=0.005, right=0.995, top=0.94, bottom=0.005, wspace=0.03, hspace=0.03)
    figure.savefig(picture)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, required=True, help="file to write, .jpg or .png")
    parser.add_argument("--side", type=int, default=120, help="pixels a panel")
    arguments = parser.parse_args()
    draw(arguments.picture, side=arguments.side)


if __name__ == "__main__":
    main()
