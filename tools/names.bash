# Offers the names of keys where the name of a key can stand. Bash ends a word at '@', so only the part behind the
# last '@' is replaced. If the state cannot be read, nothing is offered. The options before say which state it is.
_copr_keygen_names() {
    [[ $2 != -* ]] || return 1
    local line=${COMP_LINE:0:COMP_POINT} names=() options=() word i value
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == --@(state-dir|config) ]] || continue
        # Bash takes the '=' of an option for a word.
        value=$((i + 1))
        [[ ${COMP_WORDS[value]} != = ]] || ((value++))
        options+=("${COMP_WORDS[i]}" "${COMP_WORDS[value]}")
    done
    word=${line##*[[:space:]\'\"]}
    mapfile -t names < <("$1" "${options[@]}" list --names "$word*" </dev/null 2>/dev/null)
    COMPREPLY=("${names[@]#"${word%"$2"}"}")
    compopt +o bashdefault +o default
}
