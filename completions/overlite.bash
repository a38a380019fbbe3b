# Completion of overlite for bash.
_overlite() {
  local rest=$COMP_LINE piece trimmed typed prefix line word i
  local -a words=() lines=()
  # Bash also splits at = and at :, so what has no space in between is put together again.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    piece=${COMP_WORDS[i]}
    ((i == COMP_CWORD)) && piece=$2
    trimmed=${rest#"${rest%%[![:space:]]*}"}
    if ((i == 0)) || [[ $trimmed != "$rest" ]]; then words+=("$piece"); else words[-1]+=$piece; fi
    rest=${trimmed#"$piece"}
  done
  typed=${words[-1]}
  prefix=${typed%"$2"}
  words=("${words[@]//[\\\"\']/}")
  mapfile -t lines < <(overlite complete -- "${words[@]:1}" 2> /dev/null)
  COMPREPLY=()
  for line in "${lines[@]:1}"; do
    word=${line%%$'\t'*}
    # Within quotes, bash has all that is needed there.
    [[ ${COMP_WORDS[COMP_CWORD]} == [\"\']* ]] || printf -v word %q "$word"
    COMPREPLY+=("${word#"$prefix"}")
  done
  case ${lines[0]} in
    files) compopt -o bashdefault -o default ;;
    directories) compopt -o dirnames ;;
  esac
}
complete -F _overlite overlite
