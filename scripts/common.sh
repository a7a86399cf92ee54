# Sourced by the other scripts: messages, and the installation of what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# required NAME: whether KILN_REQUIRE lists what a test may otherwise do without (gpu, tint, models, browser).
required() { [[ ",${KILN_REQUIRE:-}," == *",$1,"* ]]; }

# install_packages PACKAGE...: with apt, as root or through sudo.
install_packages() {
    local how=()
    if [ "$(id -u)" -ne 0 ]; then
        how=(sudo)
        # Without a terminal nobody can type a password.
        [ -t 0 ] || how=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null || { [ ${#how[@]} -gt 0 ] && ! command -v sudo >/dev/null; }; then
        fail "missing: $*; install them with your package manager (on Debian, as root: apt-get install $*)"
    fi
    say "Installing $* with apt"
    { "${how[@]}" apt-get update -q && "${how[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "$@"; } >&2 ||
        fail "apt could not install: $*; install them as root and run this again"
}

# Rust, a linker, and Python with pip for the model files.
need_tools() {
    local missing=()
    command -v cargo >/dev/null || fail "cargo is missing; install Rust from https://rustup.rs"
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v python3 >/dev/null || missing+=(python3)
    python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

# The Vulkan loader and, where no driver is found, Mesa's (which has a software device).
need_vulkan() {
    [ "$(uname -s)" = Linux ] || return 0
    # Mesa's drivers call it an error not to have one.
    export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
    local missing=() loader
    loader=$({ ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -c 'libvulkan\.so\.1') || true
    [ "$loader" -gt 0 ] || missing+=(libvulkan1)
    if [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] &&
        ! compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null &&
        ! compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null; then
        missing+=(mesa-vulkan-drivers)
    fi
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

# Where cargo puts what it builds.
target_folder() {
    cargo metadata --format-version 1 --no-deps |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}
