"""Who sees which model: a hash of the user and the experiment's salt, and nothing that is stored.

Users lie on [0, 1). With m treatments each has a lane of 1/m; of its lane a treatment takes the first part, as wide as
its share, and the default model gets what is left. So a user's model does not change while the configuration does not,
and a share that is raised takes users from the default model only.
"""

from prectr.core.text import hash_fraction
from prectr.serving.config import ExperimentSplit, ModelsConfig


def assigned_model(user_id: str, models: ModelsConfig) -> tuple[str, str | None]:
    """Name of the model that a user sees, and the variant: the same name, None while no experiment runs."""
    assert models.control is not None
    if not models.experiment.shares:
        return models.control, None
    name = treatment_of(user_id, models.experiment) or models.control
    return name, name


def treatment_of(user_id: str, experiment: ExperimentSplit) -> str | None:
    """The treatment that a user is in; None for the rest."""
    lanes = len(experiment.shares)
    place = hash_fraction(user_id, experiment.name, experiment.salt) * lanes
    lane = int(place)
    name, share = list(experiment.shares.items())[lane]
    return name if (place - lane) / lanes < share else None
