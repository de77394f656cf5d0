# Offers the names of keys, where one can stand. Bash takes an '@' for the end of a word, so only what is behind
# the last one is replaced. Without a readable state there is nothing to offer.
_copr_keygen_names() {
    [[ $2 != -* ]] || return 1
    local line=${COMP_LINE:0:COMP_POINT} names=() word
    word=${line##*[[:space:]\'\"]}
    mapfile -t names < <("$1" list --names "$word*" </dev/null 2>/dev/null)
    COMPREPLY=("${names[@]#"${word%"$2"}"}")
    compopt +o bashdefault +o default
}
