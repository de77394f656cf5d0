# Offers the names of keys where the name of a key can stand. Bash ends a word at '@', so only the part behind the
# last '@' is replaced. If the state cannot be read, nothing is offered.
_copr_keygen_names() {
    [[ $2 != -* ]] || return 1
    local line=${COMP_LINE:0:COMP_POINT} names=() word
    word=${line##*[[:space:]\'\"]}
    mapfile -t names < <("$1" list --names "$word*" </dev/null 2>/dev/null)
    COMPREPLY=("${names[@]#"${word%"$2"}"}")
    compopt +o bashdefault +o default
}
