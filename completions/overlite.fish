# Completion of overlite for fish.
function __overlite_complete
  set -l words (commandline -opc)
  set -l typed (commandline -ct | string replace --all --regex '[\\\\"\']' '')
  set -l lines (overlite complete -- $words[2..] "$typed" 2> /dev/null)
  switch "$lines[1]"
    case files
      __fish_complete_path (commandline -ct)
    case directories
      __fish_complete_directories (commandline -ct)
  end
  test (count $lines) -gt 1; and printf '%s\n' $lines[2..]
end
complete -c overlite -e
complete -c overlite -f -a '(__overlite_complete)'
