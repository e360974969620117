#!/usr/bin/env bash
# Installs a build tree into a temporary prefix, moves that prefix (an installed tree may be moved), builds the consumer
# against it with CMake and with pkg-config, and runs both.
#   install_test.sh CMAKE BUILD_DIR CONSUMER_DIR CXX VERSION SANITIZERS
set -euo pipefail
cmake=$1 build=$2 consumer=$3 cxx=$4 version=$5 sanitize=$6

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(-std=c++20 -Wall -Wextra -Werror)
[ -z "$sanitize" ] || flags+=("-fsanitize=$sanitize")

"$cmake" --install "$build" --prefix "$work/first" >"$work/install.log" || { cat "$work/install.log"; exit 1; }
mv "$work/first" "$work/prefix"
prefix=$work/prefix
libdir=$(dirname "$(find "$prefix" -name libregard.so)")

echo "== installed files"
(cd "$prefix" && find . -type f -o -type l | sort)
for wanted in include/regard/regard.h "share/doc/regard/LICENSE"; do
  [ -f "$prefix/$wanted" ] || { echo "not installed: $wanted"; exit 1; }
done

echo "== find_package"
"$cmake" -S "$consumer" -B "$work/cmake" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_COMPILER="$cxx" \
  -DCMAKE_CXX_FLAGS="${flags[*]}" -DWANTED_VERSION="$version" >"$work/cmake.log" ||
  { cat "$work/cmake.log"; exit 1; }
"$cmake" --build "$work/cmake"
"$work/cmake/consumer" "$version"

echo "== pkg-config"
export PKG_CONFIG_PATH=$libdir/pkgconfig
[ "$(pkg-config --modversion regard)" = "$version" ] || { echo "pkg-config: wrong version"; exit 1; }
read -r -a package_flags <<<"$(pkg-config --cflags --libs regard)"
"$cxx" "${flags[@]}" "$consumer/consumer.cc" "${package_flags[@]}" -o "$work/consumer"
LD_LIBRARY_PATH=$libdir "$work/consumer" "$version"

if [ -x "$prefix/bin/regard" ]; then
  echo "== the installed command"
  "$prefix/bin/regard" list >/dev/null
fi
echo "installed copy works"
