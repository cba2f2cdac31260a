"""Which revision of a model is asked of the hub."""

from consumer.settings import ConsumerSettings

SECRET = {"SECRET_API_KEY": "correct horse battery staple 0123456789"}


def _revisions(**changes: str) -> tuple[str, str]:
    settings = ConsumerSettings.from_env(SECRET | changes)
    return settings.clip_revision_or_default, settings.blip_revision_or_default


def test_default_models_have_revisions_with_safetensors() -> None:
    """Their `main` has none."""
    assert _revisions() == ("b97b0100e55e367c057773c2a614676470b0d575", "refs/pr/50")


def test_another_model_is_not_taken_from_somebodys_pull_request() -> None:
    """A default revision belongs to the default model; another's pull request is anybody's."""
    large = "Salesforce/blip-image-captioning-large"

    assert _revisions(CLIP_MODEL="google/siglip2-base-patch16-224", BLIP_MODEL=large) == (
        "main",
        "main",
    )


def test_a_revision_that_is_given_is_taken() -> None:
    """For whatever model."""
    assert _revisions(CLIP_MODEL="a/b", CLIP_REVISION="v1", BLIP_REVISION="v2") == ("v1", "v2")
