# Functions for the scripts beside this file: `. scripts/lib.sh`. They install what is missing, say what they do, and do
# nothing when everything is there.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

# What a fleetswitch host runs, what the lab needs around it, and what libvirt-python is compiled with.
packages=(
	openvswitch-switch libvirt-daemon-system libvirt-clients qemu-system-x86
	iproute2 ethtool tcpdump iputils-ping util-linux busybox-static
	python3 python3-venv python3-dev libvirt-dev pkg-config gcc libc6-dev
)

say() {
	if [ -t 2 ]; then printf '\033[1m==> %s\033[0m\n' "$*" >&2; else printf '==> %s\n' "$*" >&2; fi
}

fail() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# explain SCRIPT "$@": print the comment at the head of a script and leave, when --help or -h is the first argument.
explain() {
	case ${2-} in
	-h | --help)
		sed -n '2,/^[^#]/ { s/^# \{0,1\}//p }' "$1"
		exit 0
		;;
	esac
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		fail "root is needed for: $*"
	fi
}

# Debian packages that are missing, one a line.
missing_packages() {
	local package
	for package in "${packages[@]}"; do
		dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
	done
}

# Install them; the services that they bring are not started: fleetswitch's lab runs its own.
need_packages() {
	local missing policy
	command -v dpkg-query >/dev/null || fail "this is not Debian or Ubuntu: install the like of ${packages[*]}"
	mapfile -t missing < <(missing_packages)
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing Debian packages: ${missing[*]}"
	as_root apt-get -q update
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
		as_root chmod 755 $policy
		# shellcheck disable=SC2064
		trap "as_root rm -f $policy" EXIT
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" ||
		fail "apt-get could not install ${missing[*]}"
	if [ "$(trap -p EXIT)" ]; then
		as_root rm -f $policy
		trap - EXIT
	fi
}

# fetching COMMAND...: run pip; a terminal sees all that it says, its progress bars too, and a log what is fetched and built.
fetching() {
	if [ -t 2 ]; then
		"$@" >&2
	else
		"$@" | sed -un 's/^ *\(Downloading [^ ]*\).*/    \1/p; s/^ *\(Building .*\)/    \1/p; s/^\(Successfully installed\) .*/    \1/p' >&2
	fi
}

# A Python of 3.11 or later that can make virtual environments.
find_python() {
	local candidate
	for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
		if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			command -v "$candidate"
			return
		fi
	done
	fail "no Python 3.11 or later with venv: apt-get install python3-venv"
}

# The virtual environment .venv with this project and its development tools in it. Its packages are looked at again
# only when the files that name them changed.
need_venv() {
	local stamp=$venv/.fleetswitch wanted python
	wanted=$(cat "$root/setup.cfg" "$root/pyproject.toml" | sha256sum)
	[ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
	if [ ! -x "$venv/bin/python" ]; then
		python=$(find_python) || exit 1
		say "making the virtual environment .venv with $python"
		"$python" -m venv "$venv"
	fi
	say "installing fleetswitch and its tools into .venv"
	(cd "$root" && fetching "$venv/bin/pip" install --disable-pip-version-check -e '.[dev]') ||
		fail "pip could not install the project"
	printf '%s\n' "$wanted" >"$stamp"
}
