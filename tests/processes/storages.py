"""Reads Optuna's databases in the process of the tests."""

import optuna


def trials_of(url: str, study_name: str) -> list[optuna.trial.FrozenTrial]:
    """Returns the trials of a study, and leaves no connection open."""
    storage = optuna.storages.RDBStorage(url)
    try:
        study = optuna.load_study(study_name=study_name, storage=storage)
        return study.get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()
