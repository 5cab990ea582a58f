"""How good images are, as numbers, all in float64.

- `images`: how close pairs of images are: mean squared error, PSNR, SSIM.
- `distances`: how far apart two sets of features are: Fréchet distance, KID.
- `neighbours`: precision, recall, density and coverage, from nearest neighbours.
- `classes`: inception score and mode histogram, from what a classifier says.
- `extract`: from images to features and class probabilities, by a network with a fingerprint.
- `teaching`: how well a classifier learns from generated images.
- `judge`: all of these for sets of images, beside one real set; `ladder`: real images made worse.
"""

from minigan.metrics.classes import inception_score, mode_histogram
from minigan.metrics.distances import frechet_distance, kernel_distance
from minigan.metrics.extract import extract, fingerprint
from minigan.metrics.images import image_scores, mse, psnr, ssim
from minigan.metrics.judge import Judge
from minigan.metrics.ladder import blurred, drawn, ladder, noisy
from minigan.metrics.neighbours import Balls, density_coverage, neighbour_scores, precision_recall
from minigan.metrics.teaching import classification_accuracy_score

__all__ = [
    "Balls",
    "Judge",
    "blurred",
    "classification_accuracy_score",
    "density_coverage",
    "drawn",
    "extract",
    "fingerprint",
    "frechet_distance",
    "image_scores",
    "inception_score",
    "kernel_distance",
    "ladder",
    "mode_histogram",
    "mse",
    "neighbour_scores",
    "noisy",
    "precision_recall",
    "psnr",
    "ssim",
]
