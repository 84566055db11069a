# To be sourced: puts rustup's cargo before any other, since Debian's own is too old for this project.
PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
export PATH
