# Bash completion of llmctl.
_llmctl()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' word options=''
    local -i i

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        -R | --runtime-dir) i+=1 ;;
        -*) ;;
        *)
            command=$word
            break
            ;;
        esac
    done
    case $previous in
    -R | --runtime-dir)
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        return
        ;;
    -m | --model)
        if [[ $command == reload ]]; then
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            return
        fi
        ;;
    esac
    case $command in
    '') options='status requests logs generate chat wait config doctor key drain restart reload upgrade version --help' ;;
    status) options='--json --watch' ;;
    config | doctor | requests) options='--json' ;;
    logs) options='--json --lines llmd gateway worker' ;;
    key) options='--stdin rpm= tpm= concurrency= weight= priority=' ;;
    reload) options='--model' ;;
    wait) options='--timeout --pid --quiet' ;;
    restart)
        if [[ $previous == restart ]]; then
            options='gateway group llmd'
        fi
        ;;
    generate) options='--max-tokens --temperature --seed --model --raw --stats' ;;
    chat) options='--max-tokens --temperature --seed --model --raw --stats --system' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$options --runtime-dir" -- "$current")
}
complete -F _llmctl llmctl
