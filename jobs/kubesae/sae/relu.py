"""ReLU + L1 SAE with a free decoder (Anthropic, "Update on how we train SAEs", April 2024).

B = rows, D = d_model, F = features.

    z     = W_enc (x - b_dec) + b_enc
    f     = ReLU(z)
    x_hat = f W_dec + b_dec
    loss  = mean over rows and dimensions of (x - x_hat)^2
            + l1 * PENALTY / sqrt(d_model) * mean over rows of sum_i f_i |W_dec_i|

"""
