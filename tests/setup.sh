#!/usr/bin/env bash
# Installs what the tests need and the machine lacks: programs by apt-get, and the applications that
# the proxy is tried in front of below target/apps. Says what to install where it cannot.
set -euo pipefail
cd "$(dirname "$0")/.."
apps="${CARGO_TARGET_DIR:-target}/apps"

# A Debian package, and what works once it is there.
needed=(
    "ca-certificates : test -e /etc/ssl/certs/ca-certificates.crt"
    "chromium        : command -v chromium"
    "chromium-driver : command -v chromedriver"
    "curl            : command -v curl"
    "libfaketime     : ls /usr/lib/*/faketime/libfaketime.so.1"
    "libjs-codemirror: test -e /usr/share/javascript/codemirror/lib/codemirror.js"
    "libjs-jquery    : test -e /usr/share/javascript/jquery/jquery.min.js"
    "libjs-jquery-ui : test -e /usr/share/javascript/jquery-ui/jquery-ui.min.js"
    "libjs-jquery-cookie : test -e /usr/share/javascript/jquery-cookie/jquery.cookie.js"
    "openssl         : command -v openssl"
    "php-cli         : command -v php"
    "php-mbstring    : php -r 'exit(extension_loaded(\"mbstring\") ? 0 : 1);'"
    "php-phpseclib   : test -e /usr/share/php/phpseclib/bootstrap.php"
    "php-sqlite3     : php -r 'exit(extension_loaded(\"sqlite3\") ? 0 : 1);'"
    "php-xml         : php -r 'exit(extension_loaded(\"dom\") ? 0 : 1);'"
    "python3         : command -v python3"
    "python3-venv    : python3 -c 'import ensurepip'"
    "redis-server    : command -v redis-server"
)

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env "$@"
    elif command -v sudo >/dev/null; then
        sudo env "$@"
    else
        echo "This needs root, or sudo: $*" >&2
        return 1
    fi
}

install_packages() {
    local missing=() entry
    for entry in "${needed[@]}"; do
        bash -c "${entry#*:}" >/dev/null 2>&1 || missing+=("$(tr -d ' ' <<<"${entry%%:*}")")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "The tests need these Debian packages, or what is like them here: ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing ${missing[*]}"
    as_root apt-get update -qq
    as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# A Python environment with what a list pins, with the wheels kept so that the worked example installs
# Django again without a network.
install_venv() {
    local name="$1" wanted="$2" venv="$apps/$1/venv"
    cmp -s "$wanted" "$apps/$name/requirements.txt" && return
    echo "Installing $name"
    rm -rf "${apps:?}/$name"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip download -q --disable-pip-version-check --require-hashes --only-binary :all: \
        -r "$wanted" -d "$apps/$name/wheels"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-index \
        --find-links "$apps/$name/wheels" -r "$wanted"
    cp "$wanted" "$apps/$name/requirements.txt"
}

# Fetches packages into a directory; the lists may be missing or old.
download() {
    local into="$1"
    shift
    (cd "$into" && apt-get download -qq "$@" 2>/dev/null) && return
    as_root apt-get update -qq && (cd "$into" && apt-get download -qq "$@")
}

# PHP applications from Debian's packages, unpacked instead of installed, since their packages bring
# a web server along. Links into the system are turned to where the files are.
unpack_php_apps() {
    local scratch link
    [ -e "$apps/php/done" ] && return
    echo "Unpacking PHP applications"
    rm -rf "$apps/php"
    mkdir -p "$apps/php"
    scratch=$(mktemp -d)
    download "$scratch" dokuwiki phpliteadmin || {
        echo "The tests need the Debian packages dokuwiki and phpliteadmin unpacked in $apps/php" >&2
        exit 1
    }
    for package in "$scratch"/*.deb; do
        dpkg -x "$package" "$apps/php"
    done
    rm -r "$scratch"
    find "$apps/php" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
        ln -sfn "$(realpath "$apps/php")$(readlink "$link")" "$link"
    done
    touch "$apps/php/done"
}

install_packages
install_venv django tests/it/apps/requirements.txt
install_venv grpc tests/it/apps/grpc-requirements.txt
install_venv websockets tests/it/apps/websockets-requirements.txt
install_venv jwt tests/it/apps/jwt-requirements.txt
unpack_php_apps
