"""Floor 4: the named networks."""

from minigan.models.article import ArticleDiscriminator, ArticleGenerator
from minigan.models.classifier import ImageClassifier
from minigan.models.dcgan import DCGANDiscriminator, DCGANGenerator
from minigan.models.pix2pix import PatchGAN, UNet, normal_weights

__all__ = [
    "ArticleDiscriminator",
    "ArticleGenerator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "ImageClassifier",
    "PatchGAN",
    "UNet",
    "normal_weights",
]
