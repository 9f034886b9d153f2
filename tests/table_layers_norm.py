"""Rows for norms of channels and of features, beside those in table_layers. Data only."""

from __future__ import annotations

from layer_rows import AFFINE, BOTH, ROWS_OF_5, STATS, Row, Sample, lines

IMAGES = lines((2, 3, 2, 3), (4, 3, 2, 1), (1, 3, 2, 2), (3, 3, 1, 1), modes=BOTH)
IMAGES_ALONE = (*IMAGES, Sample((1, 3, 1, 1), "plain", ("eval",)), Sample((0, 3, 2, 2), "plain", ("eval",)))
VOLUMES = lines((1, 3, 2, 1, 2), (2, 3, 1, 2, 2), (3, 3, 1, 1, 1), (1, 3, 3, 1, 1), modes=BOTH)
SIGNALS = lines((2, 3, 4), (1, 3, 5), (4, 3, 2), (3, 4), modes=BOTH)
FOUR = lines((0, 4, 2), (3, 4, 2), (1, 4, 3), (2, 4), (1, 4), (2, 4, 2, 1))
CHANNELS = lines((0, 3, 2), (2, 3, 4), (1, 2, 3), (1, 5, 1), (2, 4, 2, 2))

BATCH = (
    Row(
        "BatchNorm2d",
        lambda nn: nn.BatchNorm2d(3),
        IMAGES_ALONE,
        state=AFFINE | STATS,
        errors=(
            (Sample((1, 3, 1, 1)), r"BatchNorm2d 3: batch_norm while training: got one value for each channel"),
            (Sample((4, 2, 1, 1)), r"BatchNorm2d 3: input has 2 features, needs 3; input shape \(4, 2, 1, 1\)"),
            (Sample((4, 3)), r"BatchNorm2d 3: input: got shape \(4, 3\); needed \(B, C, H, W\)"),
        ),
    ),
    Row("BatchNorm2d", lambda nn: nn.BatchNorm2d(3, 1e-3, None, bias=False), IMAGES,
        state={"weight": (3,)} | STATS, variant="no-bias"),
    Row("BatchNorm2d", lambda nn: nn.BatchNorm2d(3, 0.1, 0.5, False, False), IMAGES, variant="plain"),
    Row("BatchNorm3d", lambda nn: nn.BatchNorm3d(3, momentum=0.3),
        (*VOLUMES, Sample((0, 3, 2, 1, 2), "plain", ("eval",))), state=AFFINE | STATS,
        errors=((Sample((2, 3, 2)), r"BatchNorm3d 3: input: got shape \(2, 3, 2\); needed \(B, C, D, H, W\)"),)),
    Row("BatchNorm3d", lambda nn: nn.BatchNorm3d(3, 0.1, track_running_stats=False, bias=False), VOLUMES,
        state={"weight": (3,)}, variant="untracked"),
    Row("BatchNorm3d", lambda nn: nn.BatchNorm3d(3, affine=False), VOLUMES, state=STATS, variant="plain"),
)  # fmt: skip

INSTANCE = (
    Row(
        "InstanceNorm1d",
        lambda nn: nn.InstanceNorm1d(3),
        (*SIGNALS, Sample((0, 3, 4), "plain", BOTH)),
        errors=(
            (Sample((2, 3, 1)), r"InstanceNorm1d 3: instance_norm: got 1 values for each channel \(input shape .*\);"),
            (Sample((2, 4, 2)), r"InstanceNorm1d 3: input has 4 features, needs 3"),
            (Sample((4, 3)), r"InstanceNorm1d 3: input has 4 features, needs 3"),
            (Sample((3,)), r"InstanceNorm1d 3: input: got shape \(3,\); needed \(B, C, T\) or \(C, T\)"),
        ),
    ),
    Row("InstanceNorm1d", lambda nn: nn.InstanceNorm1d(3, 0.01, 0.3, True, True), SIGNALS, state=AFFINE | STATS,
        variant="tracked"),
    Row("InstanceNorm1d", lambda nn: nn.InstanceNorm1d(3, 1e-3, None, True, True, bias=False), SIGNALS,
        state={"weight": (3,)} | STATS, variant="held"),
    Row("InstanceNorm2d", lambda nn: nn.InstanceNorm2d(3, affine=True, bias=False),
        lines((2, 3, 2, 3), (4, 3, 2, 1), (1, 3, 2, 2), (3, 1, 2), modes=BOTH), state={"weight": (3,)},
        errors=((Sample((4, 3)), r"InstanceNorm2d 3: input: got shape \(4, 3\); needed \(B, C, H, W\)"),)),
    Row("InstanceNorm3d", lambda nn: nn.InstanceNorm3d(3, affine=True),
        lines((1, 3, 2, 1, 2), (2, 3, 1, 2, 2), (1, 3, 3, 1, 1), (3, 2, 1, 1), modes=BOTH), state=AFFINE,
        errors=((Sample((4, 3, 2)), r"InstanceNorm3d 3: input: got shape \(4, 3, 2\); needed \(B, C, D, H, W\)"),)),
    Row("InstanceNorm2d", lambda nn: nn.InstanceNorm2d(3, 0.01, 0.3, track_running_stats=True),
        lines((2, 3, 2, 3), (4, 3, 2, 1), (1, 3, 2, 2), (3, 1, 2), modes=BOTH), state=STATS, variant="tracked"),
    Row("InstanceNorm3d", lambda nn: nn.InstanceNorm3d(3, 0.01, 0.3, True, True, bias=False),
        lines((1, 3, 2, 1, 2), (2, 3, 1, 2, 2), (1, 3, 3, 1, 1), (3, 2, 1, 1), modes=BOTH),
        state={"weight": (3,)} | STATS, variant="tracked"),
)  # fmt: skip

GROUP = (
    Row(
        "GroupNorm",
        lambda nn: nn.GroupNorm(2, 4),
        FOUR,
        state={"weight": (4,), "bias": (4,)},
        errors=(
            (Sample((2, 6)), r"GroupNorm 4: input has 6 channels, needs 4; input shape \(2, 6\)"),
            (Sample((4,)), r"GroupNorm 4: group_norm: input: got 1 dimensions; needed at least 2"),
        ),
        bad=((lambda nn: nn.GroupNorm(3, 4), r"GroupNorm: num_groups: got 3; needed a number that divides 4 channel"),),
    ),
    Row("GroupNorm", lambda nn: nn.GroupNorm(1, 4, 0.1, bias=False), FOUR, state={"weight": (4,)}, variant="one"),
    Row("GroupNorm", lambda nn: nn.GroupNorm(4, 4, affine=False), lines((0, 4, 2), (3, 4, 4), (1, 4, 3), (2, 4, 2, 2)),
        variant="each"),
)  # fmt: skip

FEATURES = (
    Row(
        "RMSNorm",
        lambda nn: nn.RMSNorm(5),
        ROWS_OF_5,
        state={"weight": (5,)},
        errors=((Sample((4, 3)), r"RMSNorm: rms_norm: input: got shape \(4, 3\); needed last axes \(5,\)"),),
    ),
    Row("RMSNorm", lambda nn: nn.RMSNorm((3, 2), eps=0.1), lines((0, 3, 2), (4, 3, 2), (1, 3, 2), (3, 2), (2, 2, 3, 2)),
        state={"weight": (3, 2)}, variant="two-axes"),
    Row("RMSNorm", lambda nn: nn.RMSNorm(5, elementwise_affine=False), ROWS_OF_5, variant="plain"),
    Row(
        "LocalResponseNorm",
        lambda nn: nn.LocalResponseNorm(2),
        CHANNELS,
        errors=((Sample((2, 3)), r"local_response_norm: input: got shape \(2, 3\); needed \(B, C, T\) or more axes"),),
        bad=((lambda nn: nn.LocalResponseNorm(0)(nn.Parameter([[[1.0]]])), r"local_response_norm: size: got 0"),),
    ),
    Row("LocalResponseNorm", lambda nn: nn.LocalResponseNorm(3, 0.5, 0.3, 2.0), CHANNELS, variant="options"),
)  # fmt: skip

ROWS = (*BATCH, *INSTANCE, *GROUP, *FEATURES)

FUNCTION_ROWS = (
    Row("instance_norm", lambda nn: lambda x: nn.functional.instance_norm(x, eps=0.2),
        lines((2, 3, 4), (1, 3, 5), (4, 3, 2), (2, 1, 2, 2)),
        errors=((Sample((3,)), r"instance_norm: input: got 1 dimensions"),)),
    Row("group_norm", lambda nn: lambda x: nn.functional.group_norm(x, 2, x.sum().reshape(1).expand(4)), FOUR,
        errors=(
            (Sample((2, 5)), r"group_norm: input has 5 channels, weight has shape \(4,\)"),
        ),
        bad=(
            (lambda nn: nn.functional.group_norm(nn.Parameter([[1.0, 2.0]]), 3), r"num_groups: got 3; needed .* 2 cha"),
            (lambda nn: nn.functional.group_norm(nn.Parameter([[1.0, 2.0]]), 2), r"group_norm: got one value in each"),
        )),
    Row("rms_norm", lambda nn: lambda x: nn.functional.rms_norm(x, (5,), eps=0.01), ROWS_OF_5,
        bad=((lambda nn: nn.functional.rms_norm(nn.Parameter([1.0]), (1,), nn.Parameter([1.0, 2.0])),
              r"rms_norm: weight: got \(2,\); needed \(1,\)"),)),
    Row("local_response_norm", lambda nn: lambda x: nn.functional.local_response_norm(x, 4, 1.0), CHANNELS),
)  # fmt: skip
