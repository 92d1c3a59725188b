"""Which versions of the exporter are accepted."""

import pytest
import torch

from common.networks import exporting


@pytest.mark.parametrize(("found", "said"), [("0.7.0", "found 0.7.0"), (None, "found none")])
def test_an_exporter_that_writes_other_numbers_is_refused(found, said, tmp_path, monkeypatch):
    def version(name):
        if found is None:
            raise exporting.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(exporting, "version", version)
    with pytest.raises(ImportError, match=rf"onnxscript 0\.7\.1 or later; {said}"):
        exporting.write_onnx(
            torch.nn.ReLU(), torch.zeros(2, 3), tmp_path / "x.onnx", argument="input", input="x", output="y"
        )
    assert not list(tmp_path.iterdir())
