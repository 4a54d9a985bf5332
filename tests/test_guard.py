"""The guard does no harm to others that use pydantic in the same environment."""

import subprocess
import sys

PICKLE = """
import cloudpickle, pydantic
class Local(pydantic.BaseModel):
    x: int
copy = cloudpickle.loads(cloudpickle.dumps(Local))
assert copy(x=3).x == 3
try:
    copy(x="three")
except pydantic.ValidationError:
    print("validates")
"""


def test_pydantic_classes_can_still_be_pickled_by_value():
    result = subprocess.run(
        [sys.executable, "-c", PICKLE], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "validates", result.stderr[-1500:]


def test_importing_pydantic_imports_nothing_heavy():
    code = (
        "import sys, pydantic; print(sorted({'torch', 'axolotl'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
