"""BibTeX of this software, the score's paper, and what the study used."""

import re
from collections.abc import Iterable

from lightning_camrobust._version import __version__

_SARKAR = """@article{sarkar2025assessing,
  title   = {Assessing the Noise Robustness of Class Activation Maps: A Framework for Reliable Model Interpretability},
  author  = {Sarkar, Syamantak and Bora, Revoti P. and Kaushal, Bhupender and George, Sudhish N. and Raja, Kiran},
  journal = {Image and Vision Computing},
  volume  = {163},
  pages   = {105717},
  year    = {2025},
  doi     = {10.1016/j.imavis.2025.105717},
  eprint  = {2508.18154},
  archivePrefix = {arXiv}
}"""
_WEBBER = """@article{webber2010similarity,
  title   = {A Similarity Measure for Indefinite Rankings},
  author  = {Webber, William and Moffat, Alistair and Zobel, Justin},
  journal = {ACM Transactions on Information Systems},
  volume  = {28},
  number  = {4},
  year    = {2010},
  doi     = {10.1145/1852102.1852106}
}"""
_CORSI = """@inproceedings{corsi2024treatment,
  title     = {The Treatment of Ties in Rank-Biased Overlap},
  author    = {Corsi, Matteo and Urbano, Juli{\\'a}n},
  booktitle = {International ACM SIGIR Conference on Research and Development in Information Retrieval},
  year      = {2024},
  eprint    = {2406.07121},
  archivePrefix = {arXiv}
}"""
_HENDRYCKS = """@inproceedings{hendrycks2019benchmarking,
  title     = {Benchmarking Neural Network Robustness to Common Corruptions and Perturbations},
  author    = {Hendrycks, Dan and Dietterich, Thomas},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  eprint    = {1903.12261},
  archivePrefix = {arXiv}
}"""
_DEMSAR = """@article{demsar2006statistical,
  title   = {Statistical Comparisons of Classifiers over Multiple Data Sets},
  author  = {Dem{\\v{s}}ar, Janez},
  journal = {Journal of Machine Learning Research},
  volume  = {7},
  pages   = {1--30},
  year    = {2006}
}"""
_EFRON = """@article{efron1987better,
  title   = {Better Bootstrap Confidence Intervals},
  author  = {Efron, Bradley},
  journal = {Journal of the American Statistical Association},
  volume  = {82},
  number  = {397},
  pages   = {171--185},
  year    = {1987}
}"""
_HOLM = """@article{holm1979simple,
  title   = {A Simple Sequentially Rejective Multiple Test Procedure},
  author  = {Holm, Sture},
  journal = {Scandinavian Journal of Statistics},
  volume  = {6},
  number  = {2},
  pages   = {65--70},
  year    = {1979}
}"""
_VEDALDI = """@inproceedings{vedaldi2008quick,
  title     = {Quick Shift and Kernel Methods for Mode Seeking},
  author    = {Vedaldi, Andrea and Soatto, Stefano},
  booktitle = {European Conference on Computer Vision},
  year      = {2008}
}"""
_ACHANTA = """@article{achanta2012slic,
  title   = {SLIC Superpixels Compared to State-of-the-art Superpixel Methods},
  author  = {Achanta, Radhakrishna and Shaji, Appu and Smith, Kevin and Lucchi, Aurelien and Fua, Pascal and
             S{\\"u}sstrunk, Sabine},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume  = {34},
  number  = {11},
  pages   = {2274--2282},
  year    = {2012}
}"""
_SEGMENTERS = {"quickshift": _VEDALDI, "quickshift_skimage": _VEDALDI, "slic": _ACHANTA}
# Where what has a preprint was published.
_VENUES = {
    "gradcam": "IEEE International Conference on Computer Vision",
    "gradcam_plusplus": "IEEE Winter Conference on Applications of Computer Vision",
    "xgradcam": "British Machine Vision Conference",
    "eigencam": "International Joint Conference on Neural Networks",
    "scorecam": "IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops",
    "fullgrad": "Advances in Neural Information Processing Systems",
    "rise": "British Machine Vision Conference",
    "occlusion": "European Conference on Computer Vision",
    "attention_rollout": "Annual Meeting of the Association for Computational Linguistics",
    "finercam": "IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    "fgsm": "International Conference on Learning Representations",
    "pgd": "International Conference on Learning Representations",
    "road": "International Conference on Machine Learning",
}
# Key, title, authors, year and arXiv number.
_PREPRINTS = {
    "gradcam": (
        "selvaraju2017gradcam",
        "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
        "Selvaraju, Ramprasaath R. and Cogswell, Michael and Das, Abhishek and Vedantam, Ramakrishna and Parikh, Devi "
        "and Batra, Dhruv",
        2017,
        "1610.02391",
    ),
    "gradcam_plusplus": (
        "chattopadhay2018gradcampp",
        "Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks",
        "Chattopadhay, Aditya and Sarkar, Anirban and Howlader, Prantik and Balasubramanian, Vineeth N.",
        2018,
        "1710.11063",
    ),
    "xgradcam": (
        "fu2020axiom",
        "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs",
        "Fu, Ruigang and Hu, Qingyong and Dong, Xiaohu and Guo, Yulan and Gao, Yinghui and Li, Biao",
        2020,
        "2008.02312",
    ),
    "hirescam": (
        "draelos2020hirescam",
        "Use HiResCAM instead of Grad-CAM for Faithful Explanations of Convolutional Neural Networks",
        "Draelos, Rachel Lea and Carin, Lawrence",
        2020,
        "2011.08891",
    ),
    "eigencam": (
        "muhammad2020eigencam",
        "Eigen-CAM: Class Activation Map using Principal Components",
        "Muhammad, Mohammed Bany and Yeasin, Mohammed",
        2020,
        "2008.00299",
    ),
    "scorecam": (
        "wang2020scorecam",
        "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks",
        "Wang, Haofan and Wang, Zifan and Du, Mengnan and Yang, Fan and Zhang, Zijian and Ding, Sirui and "
        "Mardziel, Piotr and Hu, Xia",
        2020,
        "1910.01279",
    ),
    "fullgrad": (
        "srinivas2019fullgrad",
        "Full-Gradient Representation for Neural Network Visualization",
        "Srinivas, Suraj and Fleuret, Fran{\\c{c}}ois",
        2019,
        "1905.00780",
    ),
    "rise": (
        "petsiuk2018rise",
        "RISE: Randomized Input Sampling for Explanation of Black-box Models",
        "Petsiuk, Vitali and Das, Abir and Saenko, Kate",
        2018,
        "1806.07421",
    ),
    "occlusion": (
        "zeiler2014visualizing",
        "Visualizing and Understanding Convolutional Networks",
        "Zeiler, Matthew D. and Fergus, Rob",
        2014,
        "1311.2901",
    ),
    "attention_rollout": (
        "abnar2020quantifying",
        "Quantifying Attention Flow in Transformers",
        "Abnar, Samira and Zuidema, Willem",
        2020,
        "2005.00928",
    ),
    "finercam": (
        "zhang2025finercam",
        "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation",
        "Zhang, Ziheng and Gu, Jianyang and Chowdhury, Arpita and Mai, Zheda and Carlyn, David and Berger-Wolf, Tanya "
        "and Su, Yu and Chao, Wei-Lun",
        2025,
        "2501.11309",
    ),
    "shapleycam": (
        "cai2025cams",
        "CAMs as Shapley Value-based Explainers",
        "Cai, Huaiguang",
        2025,
        "2501.06261",
    ),
    "cfcam": (
        "he2025cfcam",
        "CF-CAM: Cluster Filter Class Activation Mapping for Reliable Gradient-Based Interpretability",
        "He, Hongjie and Pan, Xu and Yao, Yudong",
        2025,
        "2504.00060",
    ),
    "fusioncam": (
        "dekdegue2026fusioncam",
        "Fusion-CAM: Integrating Gradient and Region-Based Class Activation Maps for Robust Visual Explanations",
        "Dekdegue, Hajar and Garouani, Moncef and Mothe, Josiane and Bernigaud, Jordan",
        2026,
        "2603.05386",
    ),
    "smooth": (
        "smilkov2017smoothgrad",
        "SmoothGrad: Removing Noise by Adding Noise",
        "Smilkov, Daniel and Thorat, Nikhil and Kim, Been and Vi{\\'e}gas, Fernanda and Wattenberg, Martin",
        2017,
        "1706.03825",
    ),
    "fgsm": (
        "goodfellow2015explaining",
        "Explaining and Harnessing Adversarial Examples",
        "Goodfellow, Ian J. and Shlens, Jonathon and Szegedy, Christian",
        2015,
        "1412.6572",
    ),
    "pgd": (
        "madry2018towards",
        "Towards Deep Learning Models Resistant to Adversarial Attacks",
        "Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and Tsipras, Dimitris and Vladu, Adrian",
        2018,
        "1706.06083",
    ),
    "road": (
        "rong2022consistent",
        "A Consistent and Efficient Evaluation Strategy for Attribution Methods",
        "Rong, Yao and Leemann, Tobias and Borisov, Vadim and Kasneci, Gjergji and Kasneci, Enkelejda",
        2022,
        "2202.00449",
    ),
}
_LAYERCAM = """@article{jiang2021layercam,
  title   = {LayerCAM: Exploring Hierarchical Class Activation Maps for Localization},
  author  = {Jiang, Peng-Tao and Zhang, Chang-Bin and Hou, Qibin and Cheng, Ming-Ming and Wei, Yunchao},
  journal = {IEEE Transactions on Image Processing},
  volume  = {30},
  pages   = {5875--5888},
  year    = {2021},
  doi     = {10.1109/TIP.2021.3089943}
}"""
_ABLATIONCAM = """@inproceedings{desai2020ablationcam,
  title     = {Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free Localization},
  author    = {Desai, Saurabh and Ramaswamy, Harish G.},
  booktitle = {IEEE/CVF Winter Conference on Applications of Computer Vision},
  year      = {2020}
}"""
_GILDENBLAT = """@misc{gildenblat2021pytorchcam,
  title        = {PyTorch Library for CAM Methods},
  author       = {Gildenblat, Jacob and contributors},
  year         = {2021},
  howpublished = {GitHub, jacobgil/pytorch-grad-cam}
}"""
_PUBLISHED = {"layercam": _LAYERCAM, "ablationcam": _ABLATIONCAM} | dict.fromkeys(
    ("pytorch_grad_cam", "eigengradcam", "gradcam_elementwise", "randomcam"), _GILDENBLAT
)


def bibliography(
    methods: Iterable[str],
    perturbations: Iterable[str] = (),
    *,
    segmenters: Iterable[str] = (),
    critique: bool = False,
) -> str:
    """Write the BibTeX entries of a study.

    Args:
        methods: Labels of the CAM methods that were used, such as ``"gradcam"`` or ``"gradcam_2"``.
        perturbations: Labels of the perturbations; attacks have papers of their own.
        segmenters: Names of the segmenters, in any reading.
        critique: Whether there is a critique of scores that remove pixels, which takes up RISE and ROAD.

    Returns:
        Entries, a blank line apart: this software, the score's paper, rankings, corruptions, tests, then each segmenter
        and method.
        A method of the user's own has none.

    Example:
        >>> text = bibliography(["gradcam", "my own"])
        >>> "selvaraju2017gradcam" in text, "chattopadhay" in text, text.count("@")
        (True, False, 9)
    """
    used = [name for label in (*methods, *perturbations) for name in _known_names(label)]
    used += ["rise", "road"] if critique else []
    cut = [_SEGMENTERS[name] for name in segmenters if name in _SEGMENTERS]
    always = [_software(), _SARKAR, _WEBBER, _CORSI, _HENDRYCKS, _DEMSAR, _EFRON, _HOLM]
    return "\n\n".join(dict.fromkeys([*always, *cut, *(_entry(name) for name in used)]))


def _known_names(label: str) -> list[str]:
    """Find members in a label: as a whole, without the number of a repeated member, or inside brackets."""
    words = [re.sub(r"_\d+$", "", word) for word in re.findall(r"\w+", label.lower())]
    return [word for word in words if word in _PREPRINTS or word in _PUBLISHED]


def _entry(name: str) -> str:
    if name in _PUBLISHED:
        return _PUBLISHED[name]
    key, title, authors, year, number = _PREPRINTS[name]
    venue = f"  booktitle = {{{_VENUES[name]}}},\n" if name in _VENUES else ""
    return (
        f"@{'inproceedings' if venue else 'misc'}{{{key},\n  title  = {{{title}}},\n  author = {{{authors}}},\n{venue}"
        f"  year   = {{{year}}},\n  eprint = {{{number}}},\n  archivePrefix = {{arXiv}}\n}}"
    )


def _software() -> str:
    return (
        "@software{lightning_camrobust,\n"
        "  title   = {lightning-camrobust: Noise Robustness of Class Activation Maps},\n"
        "  author  = {{The lightning-camrobust developers}},\n"
        f"  version = {{{__version__}}},\n  license = {{Apache-2.0}}\n}}"
    )
