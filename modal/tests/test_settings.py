import pytest

from comfyd_modal import settings
from comfyd_modal.settings import SettingError, Settings


def test_defaults_fit_flux_dev_in_fp16():
    s = settings.from_env({})
    assert s == Settings()
    assert s.gpu == ("L40S",) and s.cpu == 4 and s.memory == 40 * 1024
    assert s.snapshot and not s.gpu_snapshot and s.region == () and s.app == "comfyd" and s.volume == "comfyd-models"


def test_everything_is_read_and_survives_the_way_into_the_container():
    env = {
        "MODAL_APP": "studio",
        "COMFYD_MODAL_GPU": "l40s, A100-40GB:2,H100!",
        "COMFYD_MODAL_CPU": "2.5",
        "COMFYD_MODAL_MEMORY": "65536",
        "COMFYD_MODAL_TIMEOUT": "86400",
        "COMFYD_MODAL_STARTUP_TIMEOUT": "900",
        "COMFYD_MODAL_MIN_CONTAINERS": "1",
        "COMFYD_MODAL_MAX_CONTAINERS": "1",
        "COMFYD_MODAL_SCALEDOWN_WINDOW": "3600",
        "COMFYD_MODAL_REGION": "us-east, EU",
        "COMFYD_MODAL_SNAPSHOT": "1",
        "COMFYD_MODAL_GPU_SNAPSHOT": "1",
        "COMFYD_MODAL_VOLUME": "weights",
    }
    s = settings.from_env(env)
    assert s.gpu == ("L40S", "A100-40GB:2", "H100!") and s.region == ("us-east", "eu")
    assert (s.cpu, s.memory, s.timeout, s.startup_timeout) == (2.5, 65536, 86400, 900)
    assert (s.min_containers, s.max_containers, s.scaledown_window) == (1, 1, 3600)
    assert s.gpu_snapshot and s.app == "studio" and s.volume == "weights"
    assert settings.from_env(s.environment()) == s
    assert set(s.environment()) == set(env)
    assert settings.from_env(Settings().environment()) == Settings()
    without = settings.from_env({"COMFYD_MODAL_SNAPSHOT": "0"})
    assert not without.snapshot and settings.from_env(without.environment()) == without


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("COMFYD_MODAL_GPU", "NOPE", "L40S"),
        ("COMFYD_MODAL_GPU", "L40S,", "L40S"),
        ("COMFYD_MODAL_GPU", "A10:5", "1 to 4"),
        ("COMFYD_MODAL_GPU", "H100:0", "1 to 8"),
        ("COMFYD_MODAL_GPU", "H100:", "1 to 8"),
        ("COMFYD_MODAL_TIMEOUT", "0", "1 to 86400"),
        ("COMFYD_MODAL_TIMEOUT", "86401", "1 to 86400"),
        ("COMFYD_MODAL_TIMEOUT", "1h", "whole number"),
        ("COMFYD_MODAL_TIMEOUT", "1.5", "whole number"),
        ("COMFYD_MODAL_STARTUP_TIMEOUT", "-1", "1 to 86400"),
        ("COMFYD_MODAL_SCALEDOWN_WINDOW", "1", "2 to 3600"),
        ("COMFYD_MODAL_SCALEDOWN_WINDOW", "3601", "2 to 3600"),
        ("COMFYD_MODAL_CPU", "0", "0.125 to 64"),
        ("COMFYD_MODAL_CPU", "nan", "0.125 to 64"),
        ("COMFYD_MODAL_MEMORY", "40GB", "128 to 344064"),
        ("COMFYD_MODAL_MEMORY", "400000", "128 to 344064"),
        ("COMFYD_MODAL_MIN_CONTAINERS", "9", "COMFYD_MODAL_MAX_CONTAINERS, which is 8"),
        ("COMFYD_MODAL_MAX_CONTAINERS", "0", "1 to 1000"),
        ("COMFYD_MODAL_REGION", "mars", "us-east"),
        ("COMFYD_MODAL_REGION", "us_east", "us-east"),
        ("COMFYD_MODAL_GPU_SNAPSHOT", "yes", "0 or 1"),
        ("COMFYD_MODAL_SNAPSHOT", "off", "0 or 1"),
        ("COMFYD_MODAL_VOLUME", "a b", "letters"),
        ("COMFYD_MODAL_VOLUME", "x" * 65, "1 to 64"),
        ("MODAL_APP", "x" * 56, "1 to 55"),
    ],
)
def test_a_wrong_value_is_one_line_with_variable_value_and_what_is_allowed(variable, value, allowed):
    with pytest.raises(SettingError) as e:
        settings.from_env({variable: value})
    message = str(e.value)
    assert message.startswith(variable + "=") and allowed in message and "\n" not in message
    assert value.strip(",").split(",")[-1] in message


def test_a_snapshot_of_the_gpu_without_one_of_the_memory():
    with pytest.raises(SettingError, match="^COMFYD_MODAL_GPU_SNAPSHOT='1' is not possible: .*COMFYD_MODAL_SNAPSHOT=0"):
        settings.from_env({"COMFYD_MODAL_GPU_SNAPSHOT": "1", "COMFYD_MODAL_SNAPSHOT": "0"})


@pytest.mark.parametrize("gpu", settings.GPUS)
def test_each_known_gpu_is_taken_and_modal_parses_it(gpu):
    from modal._utils.function_utils import parse_gpu_config

    assert settings.from_env({"COMFYD_MODAL_GPU": f"{gpu}:2"}).gpu == (f"{gpu}:2",)
    parsed = parse_gpu_config(f"{gpu}:2")
    assert parsed.gpu_type == gpu and parsed.count == 2


def test_the_catalogue_gets_plain_values():
    assert settings.from_env({"COMFYD_MODAL_GPU": "L40S,H100"}).public()["gpu"] == "L40S,H100"
    assert Settings().public()["max_containers"] == 8
