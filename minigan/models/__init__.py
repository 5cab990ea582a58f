"""Floor 4: the named networks."""

from minigan.models.article import ArticleDiscriminator, ArticleGenerator
from minigan.models.classifier import ImageClassifier
from minigan.models.conditional import ConditionalGenerator, ProjectionDiscriminator
from minigan.models.critic import Critic, he_weights
from minigan.models.dcgan import DCGANDiscriminator, DCGANGenerator
from minigan.models.mlp import MLPDiscriminator, MLPGenerator
from minigan.models.pix2pix import PatchGAN, UNet, normal_weights
from minigan.models.resnet import ResNetDiscriminator, ResNetGenerator

__all__ = [
    "ArticleDiscriminator",
    "ArticleGenerator",
    "ConditionalGenerator",
    "Critic",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "ImageClassifier",
    "MLPDiscriminator",
    "MLPGenerator",
    "PatchGAN",
    "ProjectionDiscriminator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "UNet",
    "he_weights",
    "normal_weights",
]
