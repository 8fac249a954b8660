"""The stages of the tables of measured results, as flags that run_squad.py and run_glue.py share."""

METHODS = {"p99.99": "--percentile=99.99", "p99.999": "--percentile=99.999", "mse": "--calib_method=mse"}
_CALIBRATE = "--do_calib --if_quant --train_batch_size=16 --calib_batch=16"
# Quantized after training, by the mode and the way its ranges are found: "ft2-mse".
PTQ = {
    f"{mode}-{method}": f"{_CALIBRATE} --quant_mode={mode} {flags}"
    for mode in ("ft1", "ft2", "ft3", "ort")
    for method, flags in METHODS.items()
}
# Added to the flags of a training: its ranges come from 32 batches of its own size, found before the first step. Each
# mode has the percentile with which PTQ loses least.
QAT = {
    f"qat-{mode}": f"--do_calib --calib_batch=32 --if_quant --quant_mode={mode} {METHODS[percentile]}"
    for mode, percentile in (("ft1", "p99.999"), ("ft2", "p99.99"))
}
DISTILLATION = "--distillation --teacher={teacher} --distillation_loss_scale=100"
