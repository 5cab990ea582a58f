"""How good images are, as numbers, all in float64.

- `images`: how close pairs of images are: mean squared error, PSNR, SSIM.
- `distances`: how far apart two sets of features are: Fréchet distance, KID.
- `neighbours`: precision, recall, density and coverage, from nearest neighbours.
- `classes`: inception score and mode histogram, from what a classifier says.
- `extract`: from images to features and class probabilities, by a network with a fingerprint.
"""

from minigan.metrics.classes import inception_score, mode_histogram
from minigan.metrics.distances import frechet_distance, kernel_distance
from minigan.metrics.extract import extract, fingerprint
from minigan.metrics.images import image_scores, mse, psnr, ssim
from minigan.metrics.neighbours import Balls, density_coverage, neighbour_scores, precision_recall

__all__ = [
    "Balls",
    "density_coverage",
    "extract",
    "fingerprint",
    "frechet_distance",
    "image_scores",
    "inception_score",
    "kernel_distance",
    "mode_histogram",
    "mse",
    "neighbour_scores",
    "precision_recall",
    "psnr",
    "ssim",
]
