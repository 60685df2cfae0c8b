#!/usr/bin/env bash
# Run the suite against the installed wheel on another Python, from a copy in which the checkout cannot be imported.
# Usage: scripts/test_wheel.sh PYTHON CONSTRAINTS [PYTEST ARGUMENTS], CONSTRAINTS a file, or "newest". EXTRAS names extras
# besides `dev`, as a,b.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
constraints=$2
shift 2
extras=dev${EXTRAS:+,$EXTRAS}

if ! "$python" --version >/dev/null 2>&1; then
    echo "error: $python does not run; put it on the PATH, or name another: OLDEST=... for test-oldest, NEWEST=... for test-newest" >&2
    exit 2
fi

# The environment stays, because torch is large; the copy of what is not ignored is made afresh.
environment=$PWD/.venv/wheel-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(basename "$constraints" .txt)${EXTRAS:+-$EXTRAS}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
    tar --null -T - -cf - | tar -xf - -C "$copy"

# First what the wheel requires, then the wheel again: pip takes an older build of the same version for installed.
test -x "$environment/bin/python" || "$python" -m venv "$environment"
pip() { "$environment/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
pip wheel --no-deps --wheel-dir "$copy/dist" "$copy"
wheel=$(echo "$copy"/dist/*.whl)
if [ "$constraints" = newest ]; then
    pip install --upgrade --upgrade-strategy eager "${wheel}[$extras]"
else
    pip install --constraint "$constraints" "${wheel}[$extras]"
fi
pip install --no-deps --force-reinstall "$wheel"

# Where documentation includes sources, it finds the installed ones.
rm -rf "$copy"/build "$copy"/*.egg-info "$copy/pggan_kit" "$copy/plugins"
packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -s "$packages/pggan_kit" "$copy/pggan_kit"
ln -s "$packages/pggan_plugins" "$copy/plugins"

cd "$copy"
export PATH=$environment/bin:$PATH
export OMP_NUM_THREADS=1
pytest -p no:cacheprovider "$@"
