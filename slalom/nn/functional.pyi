"""The functions of ``nn.functional``, and where they come from.

Written by tools/make_stub.py; do not edit.
"""
# fmt: off

from slalom.core.functional.activation import celu as celu
from slalom.core.functional.activation import elu as elu
from slalom.core.functional.activation import gelu as gelu
from slalom.core.functional.activation import glu as glu
from slalom.core.functional.activation import gumbel_softmax as gumbel_softmax
from slalom.core.functional.activation import hardshrink as hardshrink
from slalom.core.functional.activation import hardsigmoid as hardsigmoid
from slalom.core.functional.activation import hardswish as hardswish
from slalom.core.functional.activation import hardtanh as hardtanh
from slalom.core.functional.activation import leaky_relu as leaky_relu
from slalom.core.functional.activation import log_softmax as log_softmax
from slalom.core.functional.activation import logsigmoid as logsigmoid
from slalom.core.functional.activation import mish as mish
from slalom.core.functional.activation import prelu as prelu
from slalom.core.functional.activation import relu as relu
from slalom.core.functional.activation import relu6 as relu6
from slalom.core.functional.activation import rrelu as rrelu
from slalom.core.functional.activation import selu as selu
from slalom.core.functional.activation import sigmoid as sigmoid
from slalom.core.functional.activation import silu as silu
from slalom.core.functional.activation import softmax as softmax
from slalom.core.functional.activation import softmin as softmin
from slalom.core.functional.activation import softplus as softplus
from slalom.core.functional.activation import softshrink as softshrink
from slalom.core.functional.activation import softsign as softsign
from slalom.core.functional.activation import squared_relu as squared_relu
from slalom.core.functional.activation import step as step
from slalom.core.functional.activation import tanh as tanh
from slalom.core.functional.activation import tanhshrink as tanhshrink
from slalom.core.functional.activation import threshold as threshold
from slalom.core.functional.attention import scaled_dot_product_attention as scaled_dot_product_attention
from slalom.core.functional.conv import conv1d as conv1d
from slalom.core.functional.conv import conv2d as conv2d
from slalom.core.functional.conv import conv3d as conv3d
from slalom.core.functional.conv import conv_transpose1d as conv_transpose1d
from slalom.core.functional.conv import conv_transpose2d as conv_transpose2d
from slalom.core.functional.conv import conv_transpose3d as conv_transpose3d
from slalom.core.functional.conv import fold as fold
from slalom.core.functional.conv import unfold as unfold
from slalom.core.functional.distance import cosine_similarity as cosine_similarity
from slalom.core.functional.distance import normalize as normalize
from slalom.core.functional.distance import pairwise_distance as pairwise_distance
from slalom.core.functional.dropout import alpha_dropout as alpha_dropout
from slalom.core.functional.dropout import dropout as dropout
from slalom.core.functional.dropout import dropout1d as dropout1d
from slalom.core.functional.dropout import dropout2d as dropout2d
from slalom.core.functional.dropout import dropout3d as dropout3d
from slalom.core.functional.dropout import feature_alpha_dropout as feature_alpha_dropout
from slalom.core.functional.embedding import embedding as embedding, embedding_bag as embedding_bag
from slalom.core.functional.fractional import fractional_max_pool2d as fractional_max_pool2d
from slalom.core.functional.fractional import fractional_max_pool3d as fractional_max_pool3d
from slalom.core.functional.image import channel_shuffle as channel_shuffle
from slalom.core.functional.image import interpolate as interpolate
from slalom.core.functional.image import pixel_shuffle as pixel_shuffle
from slalom.core.functional.image import pixel_unshuffle as pixel_unshuffle
from slalom.core.functional.indexing import one_hot as one_hot
from slalom.core.functional.losses.binary import binary_cross_entropy as binary_cross_entropy
from slalom.core.functional.losses.binary import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from slalom.core.functional.losses.binary import binary_focal_loss as binary_focal_loss
from slalom.core.functional.losses.binary import multilabel_soft_margin_loss as multilabel_soft_margin_loss
from slalom.core.functional.losses.binary import soft_margin_loss as soft_margin_loss
from slalom.core.functional.losses.classes import cross_entropy as cross_entropy
from slalom.core.functional.losses.classes import focal_loss as focal_loss
from slalom.core.functional.losses.classes import nll_loss as nll_loss
from slalom.core.functional.losses.classes import ordinal_loss as ordinal_loss
from slalom.core.functional.losses.ctc import ctc_loss as ctc_loss
from slalom.core.functional.losses.margins import cosine_embedding_loss as cosine_embedding_loss
from slalom.core.functional.losses.margins import hinge_embedding_loss as hinge_embedding_loss
from slalom.core.functional.losses.margins import margin_ranking_loss as margin_ranking_loss
from slalom.core.functional.losses.margins import multi_margin_loss as multi_margin_loss
from slalom.core.functional.losses.margins import multilabel_margin_loss as multilabel_margin_loss
from slalom.core.functional.losses.margins import triplet_margin_loss as triplet_margin_loss
from slalom.core.functional.losses.margins import triplet_margin_with_distance_loss as triplet_margin_with_distance_loss
from slalom.core.functional.losses.regression import gaussian_nll_loss as gaussian_nll_loss
from slalom.core.functional.losses.regression import huber_loss as huber_loss
from slalom.core.functional.losses.regression import kl_div as kl_div
from slalom.core.functional.losses.regression import l1_loss as l1_loss
from slalom.core.functional.losses.regression import log_cosh_loss as log_cosh_loss
from slalom.core.functional.losses.regression import mse_loss as mse_loss
from slalom.core.functional.losses.regression import poisson_nll_loss as poisson_nll_loss
from slalom.core.functional.losses.regression import quantile_loss as quantile_loss
from slalom.core.functional.losses.regression import smooth_l1_loss as smooth_l1_loss
from slalom.core.functional.norm import batch_norm as batch_norm
from slalom.core.functional.norm import group_norm as group_norm
from slalom.core.functional.norm import instance_norm as instance_norm
from slalom.core.functional.norm import layer_norm as layer_norm
from slalom.core.functional.norm import local_response_norm as local_response_norm
from slalom.core.functional.norm import rms_norm as rms_norm
from slalom.core.functional.padding import pad as pad
from slalom.core.functional.penalty import elastic_net_penalty as elastic_net_penalty
from slalom.core.functional.penalty import l1_penalty as l1_penalty
from slalom.core.functional.penalty import l2_penalty as l2_penalty
from slalom.core.functional.pool import adaptive_avg_pool1d as adaptive_avg_pool1d
from slalom.core.functional.pool import adaptive_avg_pool2d as adaptive_avg_pool2d
from slalom.core.functional.pool import adaptive_avg_pool3d as adaptive_avg_pool3d
from slalom.core.functional.pool import adaptive_max_pool1d as adaptive_max_pool1d
from slalom.core.functional.pool import adaptive_max_pool2d as adaptive_max_pool2d
from slalom.core.functional.pool import adaptive_max_pool3d as adaptive_max_pool3d
from slalom.core.functional.pool import avg_pool1d as avg_pool1d
from slalom.core.functional.pool import avg_pool2d as avg_pool2d
from slalom.core.functional.pool import avg_pool3d as avg_pool3d
from slalom.core.functional.pool import lp_pool1d as lp_pool1d
from slalom.core.functional.pool import lp_pool2d as lp_pool2d
from slalom.core.functional.pool import lp_pool3d as lp_pool3d
from slalom.core.functional.pool import max_pool1d as max_pool1d
from slalom.core.functional.pool import max_pool2d as max_pool2d
from slalom.core.functional.pool import max_pool3d as max_pool3d
from slalom.core.functional.unpool import max_unpool1d as max_unpool1d
from slalom.core.functional.unpool import max_unpool2d as max_unpool2d
from slalom.core.functional.unpool import max_unpool3d as max_unpool3d
from slalom.core.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_focal_loss",
    "celu",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "ctc_loss",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elastic_net_penalty",
    "elu",
    "embedding",
    "embedding_bag",
    "feature_alpha_dropout",
    "focal_loss",
    "fold",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "group_norm",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "l1_penalty",
    "l2_penalty",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_cosh_loss",
    "log_softmax",
    "logsigmoid",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "ordinal_loss",
    "pad",
    "pairwise_distance",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "quantile_loss",
    "relu",
    "relu6",
    "rms_norm",
    "rrelu",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "squared_relu",
    "step",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "unfold",
]

def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...
