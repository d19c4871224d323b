import keras
import pytest

from keras_mtl import distributions
from keras_mtl.distributions import Bar, Distribution, Gaussian


def test_the_name_of_a_distribution():
    found = distributions.get("gaussian")
    assert type(found) is Gaussian
    assert found.get_config() == Gaussian().get_config()


@pytest.mark.parametrize("given", [Gaussian(0.1), Bar([0.0, 1.0, 2.0, 3.0])])
def test_a_distribution_is_itself(given):
    assert distributions.get(given) is given


@pytest.mark.parametrize("given", [Gaussian(0.1), Bar([0.0, 1.0, 2.0, 3.0])])
def test_a_config_is_its_distribution(given):
    found = distributions.get(keras.saving.serialize_keras_object(given))
    assert type(found) is type(given)
    assert found.get_config() == given.get_config()


def test_none_is_a_plain_number():
    assert distributions.get(None) is None


def test_a_distribution_of_the_users_own():
    class Cauchy(Distribution):
        pass

    own = Cauchy()
    assert distributions.get(own) is own
    assert type(Cauchy.from_config(own.get_config())) is Cauchy


@pytest.mark.parametrize("given", ["cauchy", "Gaussian", 1.0, Gaussian])
def test_what_is_no_distribution(given):
    message = "`distribution` must be 'gaussian'.*Received: distribution="
    with pytest.raises(ValueError, match=message):
        distributions.get(given)
