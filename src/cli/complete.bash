_kdev() {
    # Bash cuts words at ":" and "=", which are within kdev's: take the line's own words.
    local line="${COMP_LINE:0:COMP_POINT}" part="$2" words=() replies=() last prefix reply
    local IFS=$' \t\n'
    read -ra words <<< "$line"
    case "$line" in *[[:space:]]) words+=("") ;; esac
    last=$((${#words[@]} - 1))
    case "$part" in [:=]) part="" ;; esac
    # What bash does not replace is not in its answer.
    prefix="${words[last]}"
    prefix="${prefix%"$part"}"
    IFS=$'\013'
    replies=($(
        _CLAP_IFS="$IFS" _CLAP_COMPLETE_INDEX="$last" _CLAP_COMPLETE_COMP_TYPE="${COMP_TYPE:-9}" \
        _CLAP_COMPLETE_SPACE=false @VARIABLE@=bash '@PROGRAM@' -- "${words[@]}" 2> /dev/null
    ))
    COMPREPLY=()
    for reply in "${replies[@]}"; do
        COMPREPLY+=("${reply#"$prefix"}")
    done
    if [[ ${#replies[@]} -ne 1 || ${replies[0]} == *[=/:] ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
# Files are among the answers where they belong: bash must not add its own.
complete -F _kdev kdev
